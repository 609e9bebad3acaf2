"""The labels that occur in street scenes: Cityscapes' names, ids and colours.

All ids in this package are Cityscapes *label ids* ("dataset ids"), not train ids.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["CATEGORIES", "LABELS", "SceneLabel", "color_table", "train_id_table"]

IGNORED = 255


@dataclass(frozen=True)
class SceneLabel:
    """One Cityscapes label.

    Attributes:
        id: Cityscapes label id.
        train_id: Cityscapes train id; 255 for void labels.
        name: Cityscapes name.
        supercategory: Cityscapes category.
        is_thing: whether single objects are distinguished.
        color: RGB, 0..255.
    """

    id: int
    train_id: int
    name: str
    supercategory: str
    is_thing: bool
    color: tuple[int, int, int]

    @property
    def is_void(self) -> bool:
        """True for regions that no training and no evaluation looks at."""
        return self.train_id == IGNORED


_ALL = (
    SceneLabel(0, IGNORED, "unlabeled", "void", False, (0, 0, 0)),
    SceneLabel(1, IGNORED, "ego vehicle", "void", False, (0, 0, 0)),
    SceneLabel(3, IGNORED, "out of roi", "void", False, (0, 0, 0)),
    SceneLabel(4, IGNORED, "static", "void", False, (0, 0, 0)),
    SceneLabel(5, IGNORED, "dynamic", "void", False, (111, 74, 0)),
    SceneLabel(7, 0, "road", "flat", False, (128, 64, 128)),
    SceneLabel(8, 1, "sidewalk", "flat", False, (244, 35, 232)),
    SceneLabel(11, 2, "building", "construction", False, (70, 70, 70)),
    SceneLabel(17, 5, "pole", "object", False, (153, 153, 153)),
    SceneLabel(20, 7, "traffic sign", "object", False, (220, 220, 0)),
    SceneLabel(21, 8, "vegetation", "nature", False, (107, 142, 35)),
    SceneLabel(22, 9, "terrain", "nature", False, (152, 251, 152)),
    SceneLabel(23, 10, "sky", "sky", False, (70, 130, 180)),
    SceneLabel(24, 11, "person", "human", True, (220, 20, 60)),
    SceneLabel(25, 12, "rider", "human", True, (255, 0, 0)),
    SceneLabel(26, 13, "car", "vehicle", True, (0, 0, 142)),
    SceneLabel(27, 14, "truck", "vehicle", True, (0, 0, 70)),
    SceneLabel(33, 18, "bicycle", "vehicle", True, (119, 11, 32)),
)

LABELS = {label.name: label for label in _ALL}
"""Every label that scenes contain, void labels included, by name."""

CATEGORIES = tuple(label for label in _ALL if not label.is_void)
"""The classes that are trained and evaluated, by ascending id."""


def color_table() -> np.ndarray:
    """Returns a (256, 3) uint8 table from label id to RGB."""
    table = np.zeros((256, 3), np.uint8)
    for label in _ALL:
        table[label.id] = label.color
    return table


def train_id_table() -> np.ndarray:
    """Returns a (256,) uint8 table from label id to train id, 255 where a label has none."""
    table = np.full(256, IGNORED, np.uint8)
    for label in _ALL:
        table[label.id] = label.train_id
    return table
