"""Pictures of label maps, and the panels and legends that a page shows them with."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from detectron2.data.catalog import Metadata

from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.visualization.panels import data_uri

__all__ = [
    "ERROR_COLORS",
    "LegendEntry",
    "NOT_LABELLED",
    "Panel",
    "PictureBudget",
    "Sample",
    "error_map",
    "legend_of",
    "paint_classes",
    "percent",
    "semantic_colors",
    "short_path",
    "with_colors",
]

Color = tuple[int, int, int]
NOT_LABELLED: Color = (255, 255, 255)
ERROR_COLORS: dict[str, Color] = {
    "wrong class": (230, 40, 30),
    "no class predicted": (255, 165, 0),
    "truth is void: not counted": (70, 110, 200),
}
_THINGS: Color = (220, 20, 60)
_GOLDEN = 0.618034


def with_colors(metadata, space: LabelSpace) -> Metadata:
    """Return the metadata with a colour for each class: spread hues if the data set has none."""
    known = metadata.as_dict()
    colors = known.get("stuff_colors") or []
    things = known.get("thing_colors") or []
    if len(colors) != space.num_classes or len(things) != space.num_classes:
        colors = things = [_hue(c) for c in range(space.num_classes)]
    # the other of the two lists may hold placeholders
    colors = [tuple((things if t else colors)[c]) for c, t in enumerate(space.is_thing)]
    return Metadata(**{**known, "thing_colors": colors, "stuff_colors": colors})


def semantic_colors(metadata: Metadata, space: LabelSpace) -> list[Color]:
    """Return the colours by semantic train id; ``metadata`` is from :func:`with_colors`."""
    ids = space.semantic_to_contiguous
    return [metadata.stuff_colors[c] if c >= 0 else _THINGS for c in ids]


def paint_classes(image: np.ndarray, classes: np.ndarray, colors: Sequence[Color]) -> np.ndarray:
    """Paint class colours over an image, and white stripes where there is no class.

    Args:
        image: (H, W, 3) uint8 RGB.
        classes: (H, W) integers; one that is not an index into ``colors`` is no class.
        colors: RGB, 0..255.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    labelled = (classes >= 0) & (classes < len(colors))
    table = np.array([*colors, (0, 0, 0)], dtype=np.float32)
    color = table[np.where(labelled, classes, len(colors))]
    painted = 0.35 * image + 0.65 * color
    painted[~labelled & _stripes(classes.shape)] = NOT_LABELLED
    return painted.astype(np.uint8)


def error_map(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mark errors on the grey image, in the colours of :data:`ERROR_COLORS`.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth, predicted: (H, W) integers, classes; below 0 none.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    picture = np.repeat(0.6 * grey + 40, 3, axis=2)
    void = truth < 0
    marks = (
        (predicted != truth) & (predicted >= 0) & ~void,
        (predicted < 0) & ~void,
        void & _stripes(truth.shape),
    )
    for mark, color in zip(marks, ERROR_COLORS.values(), strict=True):
        picture[mark] = 0.15 * picture[mark] + 0.85 * np.array(color)
    return picture.astype(np.uint8)


def _stripes(shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.indices(shape, sparse=True)
    step = max(min(shape) // 48, 2)
    return (rows + columns) // step % 2 == 0


def _hue(number: int) -> Color:
    value = (0.95, 0.7)[number // 7 % 2]
    return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, value))


NARROW, WIDE = 640, 1024
"""Widths of a picture in pixels: the least, and the most where the page has room for it."""

_WIDE_BYTES = 160_000  # of a wide street scene as text, about

PICTURE_BYTES = 8_500_000
"""Size of all pictures of a page, so that the page stays below 10 MB."""


@dataclass(frozen=True)
class Panel:
    """One picture, which ``uri`` holds."""

    caption: str
    uri: str


@dataclass(frozen=True)
class LegendEntry:
    """A class or mark, its colour (RGB, 0..255), and its share of the pixels as text."""

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
    left_out: int = 0

    def width(self, image: np.ndarray) -> int:
        """Return the width to draw an (H, W, 3) image at, in pixels."""
        widest = WIDE if self.planned * _WIDE_BYTES <= PICTURE_BYTES else NARROW
        return min(max(image.shape[1], NARROW), widest)

    def panels(self, pictures: dict[str, np.ndarray]) -> list[Panel] | None:
        """Encode the pictures of a sample.

        Args:
            pictures: (H, W, 3) uint8 RGB by caption.

        Returns:
            None if there is no room for all of them; ``left_out`` then counts one more.
        """
        uris = {caption: data_uri(picture, 82) for caption, picture in pictures.items()}
        size = sum(map(len, uris.values()))
        if size > self.left:
            self.left_out += 1
            return None
        self.left -= size
        return [Panel(caption, uri) for caption, uri in uris.items()]


def legend_of(
    classes: np.ndarray, names: Sequence[str], colors: Sequence[Color], void: LegendEntry
) -> list[LegendEntry]:
    """Return the classes that occur in a map, the largest first, then the pixels without one.

    Args:
        classes: (H, W) integers; one that is not an index into ``names`` is no class.
        names, colors: by class.
        void: the entry of pixels without a class.
    """
    labelled = (classes >= 0) & (classes < len(names))
    shares = np.bincount(classes[labelled], minlength=len(names)) / classes.size
    order = [c for c in np.argsort(-shares, kind="stable") if shares[c]]
    entries = [LegendEntry(names[c], colors[c], percent(shares[c])) for c in order]
    if not labelled.all():
        entries.append(replace(void, share=percent((~labelled).mean())))
    return entries


def short_path(file_name: str, folder: str | None) -> str:
    """Return the path of a file within a folder, or all of it if it is elsewhere."""
    if folder and Path(file_name).is_relative_to(folder):
        return str(Path(file_name).relative_to(folder))
    return file_name


def percent(share: float) -> str:
    """Return "12.3 %" for 0.123, and "< 0.1 %" where rounding would show none."""
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"
