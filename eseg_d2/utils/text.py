"""Words for messages."""

from collections.abc import Iterable

__all__ = ["listing"]


def listing(values: Iterable, limit: int = 3) -> str:
    """ "1, 2, 3" of values, or the first ``limit`` and how many more there are."""
    values = [str(value) for value in values]
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(values[:limit]) + more
