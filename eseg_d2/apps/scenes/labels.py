"""The labels of street scenes, and exact label maps of what is drawn.

All ids in this package are Cityscapes *label ids* ("dataset ids"), not train ids. Names, ids and
colours come from cityscapesscripts.
"""

import cv2
import numpy as np
from cityscapesscripts.helpers.labels import name2label

from .drawing import Drawable, silhouette

__all__ = [
    "CATEGORIES",
    "LABELS",
    "color_table",
    "instance_table",
    "is_hidden",
    "label_map",
    "outlines",
    "paint_order",
    "train_id_table",
]

IGNORED = 255

_NAMES = (
    *("unlabeled", "ego vehicle", "out of roi", "static", "dynamic"),
    *("road", "sidewalk", "building", "pole", "traffic sign", "vegetation", "terrain", "sky"),
    *("person", "rider", "car", "truck", "bicycle"),
)
LABELS = {name: name2label[name] for name in _NAMES}
"""Every label of the scenes, void labels included, by name and in ascending order of the ids."""

CATEGORIES = tuple(label for label in LABELS.values() if label.trainId != IGNORED)
"""The classes that are trained and evaluated."""

_MIN_PIXELS = 6
_MIN_AREA = 1e-4
"""A thing that covers a smaller share of the image is left out of the scene."""

_MIN_SEEN = 0.12
"""A thing of which a smaller share is visible is left out of the scene."""


def outlines(drawable: Drawable, height: int, width: int) -> list[np.ndarray]:
    """Return the contours (N, 1, 2) of a drawable: one at most for a thing, none if out of view."""
    found = silhouette(drawable, height, width)
    single = LABELS[drawable.label].hasInstances and not drawable.group
    return found[:1] if single else found


def paint_order(shapes: list[list[np.ndarray]], height: int, width: int) -> np.ndarray:
    """Paint shapes from back to front.

    Args:
        shapes: contours of each drawable.

    Returns:
        uint16 (H, W): 1 + index of the frontmost drawable at each pixel, 0 for none.
    """
    order = np.zeros((height, width), np.uint16)
    for index, contours in enumerate(shapes):
        cv2.drawContours(order, contours, -1, index + 1, cv2.FILLED)
    return order


def is_hidden(
    drawables: list[Drawable], shapes: list[list[np.ndarray]], height: int, width: int
) -> np.ndarray:
    """Return bool (N,): which drawables are out of view, or things that are hardly visible."""
    order = paint_order(shapes, height, width)
    seen = np.bincount(order.ravel(), minlength=len(shapes) + 1)[1:]
    hidden = np.array([not contours for contours in shapes])
    for index, (drawable, contours) in enumerate(zip(drawables, shapes, strict=True)):
        if LABELS[drawable.label].hasInstances and contours:
            whole = sum(cv2.contourArea(contour) for contour in contours)
            least = max(_MIN_PIXELS, _MIN_AREA * height * width, _MIN_SEEN * whole)
            hidden[index] = seen[index] < least
            if drawable.label == "rider":  # without the bicycle before it, it would be a person
                hidden[index] |= hidden[index - 1]
    return hidden


def instance_table(drawables: list[Drawable]) -> np.ndarray:
    """Return uint16 (N + 1,): the instance id of each value of :func:`paint_order`."""
    table, counts = [LABELS["unlabeled"].id], {}
    for drawable in drawables:
        label = LABELS[drawable.label]
        number = label.id
        if label.hasInstances and not drawable.group:
            number = label.id * 1000 + counts.setdefault(label.id, 0)
            counts[label.id] += 1
        table.append(number)
    return np.array(table, np.uint16)


def label_map(instance_ids: np.ndarray) -> np.ndarray:
    """Return the uint8 label ids of uint16 instance ids."""
    return np.where(instance_ids < 1000, instance_ids, instance_ids // 1000).astype(np.uint8)


def color_table() -> np.ndarray:
    """Return a (256, 3) uint8 table from label id to RGB."""
    table = np.zeros((256, 3), np.uint8)
    for label in LABELS.values():
        table[label.id] = label.color
    return table


def train_id_table() -> np.ndarray:
    """Return a (256,) uint8 table from label id to train id, 255 where a label has none."""
    table = np.full(256, IGNORED, np.uint8)
    for label in LABELS.values():
        table[label.id] = label.trainId
    return table
