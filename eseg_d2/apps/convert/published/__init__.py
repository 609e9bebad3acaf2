"""Prepare and check the published data sets."""

from .camvid import prepare_camvid
from .cityscapes import prepare_cityscapes
from .coco import check_coco

__all__ = ["check_coco", "prepare_camvid", "prepare_cityscapes"]
