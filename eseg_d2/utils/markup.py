"""Tables in Markdown, names for what stands in them, and pages by Jinja2."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["markdown_table", "page_environment", "short_names"]


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


def page_environment(package: str) -> Environment:
    """Return an environment of a package's templates that escapes everything that is filled in.

    Args:
        package: name of a package with a folder ``templates``.
    """
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
