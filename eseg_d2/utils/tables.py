"""Tables in Markdown, and short names for what stands in them."""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["markdown_table", "short_names"]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Args:
        head: of the columns.
        rows: cells, as many as there are columns.
    """
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def short_names(sources: Sequence[str | Path]) -> dict[str, str]:
    """Return the file stem of each source by the source; its path where two stems are the same.

    Args:
        sources: paths of config files, or other words; the same one twice counts once.
    """
    sources = dict.fromkeys(map(str, sources))
    stems = [Path(source).stem for source in sources]
    return {
        source: stem if stems.count(stem) == 1 else source
        for source, stem in zip(sources, stems, strict=True)
    }
