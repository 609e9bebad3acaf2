"""One count of pixels for all the parts that a batch is computed in."""

import contextlib
from contextvars import ContextVar

__all__ = ["current_pixel_count", "shared_pixel_count"]

_COUNT: ContextVar[float | None] = ContextVar("pixel_count", default=None)


@contextlib.contextmanager
def shared_pixel_count(count: float | None):
    """Semantic losses inside divide by this number of pixels, not by their own.

    If it is the mean over the parts of a batch (processes, accumulated steps), the mean of the
    parts' losses is the loss of the whole batch, though ignored pixels are spread unevenly.

    Args:
        count: pixels that are not ignored; None: each part counts its own.
    """
    token = _COUNT.set(count)
    try:
        yield
    finally:
        _COUNT.reset(token)


def current_pixel_count() -> float | None:
    """The number that was set, if one was."""
    return _COUNT.get()
