"""Which classes are taken for which."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Confusion", "Mistake"]


class Mistake(NamedTuple):
    """Pixels of one class predicted as another; ``share`` of the pixels of the class, 0..1."""

    truth: str
    prediction: str
    share: float
    pixels: int


@dataclass(frozen=True)
class Confusion:
    """Pixel counts of pairs of classes.

    Attributes:
        classes: N names.
        pixels: (N, N) int64, truth by row and prediction by column.
    """

    classes: tuple[str, ...]
    pixels: np.ndarray

    @classmethod
    def from_json(cls, content: Any) -> "Confusion":
        """Read ``{"classes": [name], "pixels": [[count]]}``, which the semantic evaluator writes.

        Raises:
            ValueError: the content has another form.
        """
        try:
            classes = tuple(map(str, content["classes"]))
            pixels = np.array(content["pixels"], dtype=np.int64)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"expected classes and pixels, got {error!r}") from error
        if pixels.shape != (len(classes), len(classes)) or (pixels < 0).any():
            raise ValueError(
                f"pixels have the shape {pixels.shape}, expected {len(classes)} rows and columns "
                "of counts from 0"
            )
        return cls(classes, pixels)

    def occurring(self) -> "Confusion":
        """Return a copy without the classes that occur neither in truth nor in prediction."""
        keep = np.flatnonzero(self.pixels.sum(0) + self.pixels.sum(1))
        return Confusion(tuple(self.classes[i] for i in keep), self.pixels[np.ix_(keep, keep)])

    def shares(self) -> np.ndarray:
        """Return (N, N) float64: each row is a true class and sums to 1; NaN if it is absent."""
        with np.errstate(invalid="ignore"):
            return self.pixels / self.pixels.sum(1, keepdims=True)

    def largest(self, count: int) -> list[Mistake]:
        """Return the mistakes that take the largest shares of their class, the largest first."""
        shares = np.nan_to_num(self.shares())
        np.fill_diagonal(shares, 0)
        order = np.argsort(-shares, axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, shares.shape)
        return [
            Mistake(self.classes[i], self.classes[j], float(shares[i, j]), int(self.pixels[i, j]))
            for i, j in zip(rows, columns, strict=True)
            if shares[i, j] > 0
        ]
