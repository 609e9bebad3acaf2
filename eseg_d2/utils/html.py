"""Pages by Jinja2."""

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["page_environment"]


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
