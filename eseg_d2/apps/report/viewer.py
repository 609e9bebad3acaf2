"""The parts of a page that shows images: panels beside each other, captions, class legend."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eseg_d2.apps.report.pictures import Color, data_uri

__all__ = [
    "LegendEntry",
    "Panel",
    "PictureBudget",
    "Sample",
    "legend_of",
    "percent",
    "short_path",
]

NARROW, WIDE = 640, 1024
"""Widths of a picture in pixels: at least, and at most where the page has room for it."""

_WIDE_BYTES = 160_000  # of a wide street scene as text, about

PICTURE_BYTES = 8_500_000
"""Of all pictures of a page, so that the page stays below 10 MB."""


@dataclass(frozen=True)
class Panel:
    """One picture; ``uri`` holds it."""

    caption: str
    uri: str


@dataclass(frozen=True)
class LegendEntry:
    """A class or mark, its colour (RGB, 0..255), and what share of the pixels it has, as text."""

    name: str
    color: Color
    share: str = ""


@dataclass(frozen=True)
class Sample:
    """One image in several panels.

    Attributes:
        title: such as its file name.
        facts: short remarks.
        panels: all of one size.
        legend: of the classes in it.
    """

    title: str
    facts: Sequence[str]
    panels: Sequence[Panel]
    legend: Sequence[LegendEntry] = ()


@dataclass
class PictureBudget:
    """Turns pictures into panels as long as the page does not get too large.

    Attributes:
        planned: how many pictures there are to be; if they are many, none is wide.
        left: bytes.
        left_out: how many samples found no room.
    """

    planned: int
    left: int = PICTURE_BYTES
    left_out: int = field(default=0)

    def width(self, image: np.ndarray) -> int:
        """How wide to draw an (H, W, 3) image, in pixels."""
        widest = WIDE if self.planned * _WIDE_BYTES <= PICTURE_BYTES else NARROW
        return min(max(image.shape[1], NARROW), widest)

    def panels(self, pictures: dict[str, np.ndarray]) -> list[Panel] | None:
        """
        Args:
            pictures: (H, W, 3) uint8 RGB by caption.

        Returns:
            None if there is no room for all of them; then ``left_out`` counts one more.
        """
        uris = {caption: data_uri(picture) for caption, picture in pictures.items()}
        size = sum(map(len, uris.values()))
        if size > self.left:
            self.left_out += 1
            return None
        self.left -= size
        return [Panel(caption, uri) for caption, uri in uris.items()]


def legend_of(
    classes: np.ndarray, names: Sequence[str], colors: Sequence[Color], void: LegendEntry
) -> list[LegendEntry]:
    """The classes that occur in a map, the largest first, then what has none.

    Args:
        classes: (H, W) integers; what is no index into ``names`` has no class.
        names, colors: by class.
        void: how pixels without a class are shown.
    """
    counts = np.bincount(
        np.where((classes >= 0) & (classes < len(names)), classes, len(names)).ravel(),
        minlength=len(names) + 1,
    )
    order = [c for c in np.argsort(-counts[:-1], kind="stable") if counts[c]]
    entries = [LegendEntry(names[c], colors[c], percent(counts[c] / classes.size)) for c in order]
    if counts[-1]:
        entries.append(LegendEntry(void.name, void.color, percent(counts[-1] / classes.size)))
    return entries


def short_path(file_name: str, folder: str | None) -> str:
    """A file's path within a folder; all of it, if it is elsewhere."""
    if folder and Path(file_name).is_relative_to(folder):
        return str(Path(file_name).relative_to(folder))
    return file_name


def percent(share: float) -> str:
    """ "12.3 %" of 0.123; "< 0.1 %" of what would else be none."""
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"
