"""Resize images as Detectron2 does with PIL, several times as fast."""

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from PIL import Image

__all__ = ["FastResize", "FastResizeTransform", "build_augmentation", "resize_bilinear"]


def build_augmentation(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Return Detectron2's augmentations of a config, whose resizing is a :class:`FastResize`."""
    augmentations = detection_utils.build_augmentation(cfg, is_train)
    return [FastResize(a) if isinstance(a, T.ResizeShortestEdge) else a for a in augmentations]


class FastResize(T.Augmentation):
    """Resizes as another augmentation does, with a :class:`FastResizeTransform`."""

    def __init__(self, augmentation: T.Augmentation):
        """
        Args:
            augmentation: chooses the size; one whose transforms are ``ResizeTransform``, such as
                ``ResizeShortestEdge``.
        """
        super().__init__()
        self._augmentation = augmentation

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Return the augmentation's transform for an (H, W, ...) image."""
        transform = self._augmentation.get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            sizes = transform.h, transform.w, transform.new_h, transform.new_w
            return FastResizeTransform(*sizes, transform.interp)
        return transform

    def __repr__(self) -> str:
        return f"FastResize({self._augmentation})"


class FastResizeTransform(T.ResizeTransform):
    """A ``ResizeTransform`` that resizes colour images with :func:`resize_bilinear`."""

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an (H, W, ...) array; labels and other interpolations are left to Detectron2."""
        method = self.interp if interp is None else interp
        colour = img.dtype == np.uint8 and img.ndim == 3 and img.shape[2] == 3
        if colour and method == Image.Resampling.BILINEAR:
            return resize_bilinear(img, (self.new_h, self.new_w))
        return super().apply_image(img, interp)


def resize_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an (H, W, 3) uint8 image to (H, W) ``size`` as PIL's bilinear, antialiased filter.

    PyTorch's kernel for 8 bits does the same fixed-point arithmetic; a few values in a thousand
    differ from PIL's by 1, because the weights of the pixels are rounded elsewhere.
    """
    if image.shape[:2] == tuple(size):
        return image
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    # channels last in the strides of all four dimensions, or the kernel copies
    pixels = pixels[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
