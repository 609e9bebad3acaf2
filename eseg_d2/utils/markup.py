"""Tables in Markdown, names for what stands in them, and pages by Jinja2."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["markdown_table", "page_environment", "short_names"]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with a head and rows of as many cells."""
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def short_names(sources: Sequence[str | Path]) -> dict[str, str]:
    """Return, by path or other word, its stem; the whole path where two have the same stem."""
    names = list(dict.fromkeys(map(str, sources)))
    stems = [Path(name).stem for name in names]
    return {
        name: stem if stems.count(stem) == 1 else name
        for name, stem in zip(names, stems, strict=True)
    }


def page_environment(package: str) -> Environment:
    """Return the templates of a package's folder ``templates``, which escape what is filled in."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
