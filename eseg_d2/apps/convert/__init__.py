"""Convert a user's own annotations to the COCO panoptic format."""

from .coco import convert_coco
from .dataset import Conversion
from .label_maps import convert_label_maps

__all__ = ["Conversion", "convert_coco", "convert_label_maps"]
