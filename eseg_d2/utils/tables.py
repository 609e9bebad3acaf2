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
    """Return the stem of each path, or the whole path where two stems are the same, by path.

    Args:
        sources: paths of config files, or other words; the same one twice counts once.
    """
    names = list(dict.fromkeys(map(str, sources)))
    stems = [Path(name).stem for name in names]
    return {
        name: stem if stems.count(stem) == 1 else name
        for name, stem in zip(names, stems, strict=True)
    }
