"""Prepare and check the published data sets."""

from .cityscapes import prepare_cityscapes
from .coco import check_coco

__all__ = ["check_coco", "prepare_cityscapes"]
