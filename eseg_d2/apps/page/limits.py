"""The limits of what a visitor may send, and checks of it."""

import math
from dataclasses import dataclass

__all__ = ["Limits", "integer_of", "score_of"]


@dataclass(frozen=True)
class Limits:
    """The limits of what a visitor may send.

    Attributes:
        max_upload: bytes of a file.
        max_pixels: pixels of an image, checked before it is decoded.
        max_aspect: longer by shorter side of an image, checked before it is decoded.
        waiting: uploads in progress, and requests that wait for the model.
    """

    max_upload: int = 20_000_000
    max_pixels: int = 2**25
    max_aspect: int = 32
    waiting: int = 16

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; expected 1 or more")


def score_of(request: dict) -> float:
    """Return the ``threshold`` of a request.

    Raises:
        ValueError: it is not a number from 0 to 1.
    """
    try:
        score = float(request.get("threshold"))
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not 0 <= score <= 1:
        raise ValueError("threshold: expected a score, 0 .. 1")
    return score


def integer_of(request: dict, key: str, end: int) -> int:
    """Return an integer of a request.

    Raises:
        ValueError: it is not an integer within 0 .. ``end`` - 1.
    """
    value = request.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < end:
        raise ValueError(f"{key}: expected a whole number from 0, below {end}")
    return value
