"""Label maps as pictures: classes in their colours, and where a prediction is wrong."""

import base64
import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data.catalog import Metadata

from eseg_d2.structures.label_space import LabelSpace

__all__ = [
    "ERROR_COLORS",
    "NOT_LABELLED",
    "data_uri",
    "error_map",
    "paint_classes",
    "semantic_colors",
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
    """The metadata with a colour for each class; of a data set without colours spread hues.

    Args:
        metadata: of the data set.
        space: its label space.
    """
    known = metadata.as_dict()
    colors = known.get("stuff_colors") or []
    things = known.get("thing_colors") or []
    if len(colors) != space.num_classes or len(things) != space.num_classes:
        colors = things = [_hue(c) for c in range(space.num_classes)]
    # the other of the two lists may hold placeholders
    colors = [tuple((things if t else colors)[c]) for c, t in enumerate(space.is_thing)]
    return Metadata(**{**known, "thing_colors": colors, "stuff_colors": colors})


def semantic_colors(metadata: Metadata, space: LabelSpace) -> list[Color]:
    """By semantic train id.

    Args:
        metadata: of :func:`with_colors`.
        space: of the data set.
    """
    ids = space.semantic_to_contiguous
    return [metadata.stuff_colors[c] if c >= 0 else _THINGS for c in ids]


def paint_classes(image: np.ndarray, classes: np.ndarray, colors: Sequence[Color]) -> np.ndarray:
    """Class colours over an image; white stripes where there is no class.

    Args:
        image: (H, W, 3) uint8 RGB.
        classes: (H, W) integers; what is no index into ``colors`` has no class.
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
    """The image in grey, marked by :data:`ERROR_COLORS`.

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


def data_uri(picture: np.ndarray) -> str:
    """An (H, W, 3) uint8 RGB picture as JPEG in text, which an ``<img>`` shows without a file."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def _stripes(shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.indices(shape, sparse=True)
    step = max(min(shape) // 48, 2)
    return (rows + columns) // step % 2 == 0


def _hue(number: int) -> Color:
    value = (0.95, 0.7)[number // 7 % 2]
    return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, value))
