"""Bilinear resizing that is cheap to differentiate on a CPU."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

__all__ = ["resize_bilinear"]


def resize_bilinear(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """``F.interpolate(x, size, mode="bilinear", align_corners=False)``, for training.

    On a CPU as a product with one matrix for each axis, in float32 also inside autocast: the same
    up to rounding. Forward and backward take less time than PyTorch's kernel below an output of
    about 1024x2048, from where they take more. On a GPU it is that kernel. (Our choice.)

    Args:
        x: (B, C, h, w) float32.
        size: (H, W).

    Returns:
        (B, C, H, W) float32.
    """
    if x.device.type != "cpu":
        return F.interpolate(x, size, mode="bilinear", align_corners=False)
    with torch.autocast("cpu", enabled=False):
        rows, columns = (_weights(*pair) for pair in zip(x.shape[-2:], size, strict=True))
        return rows @ (x.contiguous() @ columns.T)


def _weights(length: int, target: int) -> torch.Tensor:
    """(target, length): what each pixel of a line of ``target`` takes from one of ``length``."""
    identity = torch.eye(length)[None]
    return F.interpolate(identity, target, mode="linear", align_corners=False)[0].T
