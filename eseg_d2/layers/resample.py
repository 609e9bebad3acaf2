"""Move feature maps between pyramid levels: their width and size, and cheap bilinear resizing."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eseg_d2.layers.separable_conv import ConvNorm, init_conv
from eseg_d2.utils.errors import check_choice

__all__ = [
    "MaxPoolSame2d",
    "Resample",
    "conv1x1_norm",
    "make_downsampling",
    "resize_bilinear",
    "scale_map",
]


class MaxPoolSame2d(nn.Module):
    """3x3 max pooling with stride 2 and the "SAME" border of TensorFlow.

    Where the size is even, the windows start at pixel 0 and only the end is padded; PyTorch's
    `padding=1` starts them at -1. Odd sizes agree. Weights trained with TensorFlow want this one.

    Shape:
        float (N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2)).
    """

    def forward(self, x: Tensor) -> Tensor:
        # Mirrored, PyTorch's border is that of "SAME", for even and odd sizes alike: nothing here
        # depends on a size, which exporting with dynamic sizes needs.
        pooled = F.max_pool2d(x.flip((-2, -1)), kernel_size=3, stride=2, padding=1)
        return pooled.flip((-2, -1))


_DOWNSAMPLING: dict[str, Callable[[], nn.Module]] = {
    "max_pool": partial(nn.MaxPool2d, kernel_size=3, stride=2, padding=1),
    "max_pool_same": MaxPoolSame2d,
}


def make_downsampling(name: str) -> nn.Module:
    """What halves a map: (N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2)).

    Args:
        name: "max_pool", 3x3 with stride 2 and PyTorch's padding, or "max_pool_same", the same with
            TensorFlow's (:class:`MaxPoolSame2d`).

    Raises:
        ValueError: `name` is neither.
    """
    check_choice("downsample", name, _DOWNSAMPLING)
    return _DOWNSAMPLING[name]()


def conv1x1_norm(
    in_channels: int, out_channels: int, norm: Callable[[int], nn.Module | None]
) -> ConvNorm:
    """A 1x1 convolution with bias and its norm, as EfficientDet has it on its lateral edges.

    Args:
        norm: makes the norm for a number of channels, or None for no norm.
    """
    return ConvNorm(init_conv(nn.Conv2d(in_channels, out_channels, 1)), norm(out_channels))


def scale_map(x: Tensor, factor: Tensor | float | None) -> Tensor:
    """Return a map times a scalar; None stands for 1."""
    return x if factor is None else x * factor


class Resample(nn.Module):
    """One edge of a pyramid's graph: to the target's width, then to the target's size.

    1x1 convolution and norm, only where the widths differ, *before* the resampling; then down by
    3x3 max pooling with stride 2, or up to the nearest neighbour (EfficientDet, arXiv 1911.09070).
    A 1x1 convolution before a nearest neighbour is the same as after it, and costs a quarter.

    Shape:
        float (N, in_channels, h, w) to (N, out_channels, H, W) with (H, W) the size asked for.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        level_offset: int,
        norm: Callable[[int], nn.Module | None],
        downsample: str = "max_pool",
    ):
        """
        Args:
            in_channels: channels of the source.
            out_channels: channels of the target.
            level_offset: level of the source minus level of the target: -1 halves the map
                (the source has twice the target's resolution), +1 doubles it, 0 keeps it.
            norm: makes the norm after the 1x1 convolution, see :func:`conv1x1_norm`.
            downsample: how to halve, see :func:`make_downsampling`; used at offset -1.

        Raises:
            ValueError: `level_offset` or `downsample` is none of those.
        """
        super().__init__()
        if level_offset not in (-1, 0, 1):
            raise ValueError(
                f"level_offset of a Resample is {level_offset}; expected -1, 0 or +1: levels "
                "further apart are reached through those between"
            )
        self.level_offset = level_offset
        self.lateral = (
            conv1x1_norm(in_channels, out_channels, norm)
            if in_channels != out_channels
            else nn.Identity()
        )
        self.downsample = make_downsampling(downsample) if level_offset == -1 else nn.Identity()

    def forward(
        self, x: Tensor, size: tuple[int, int], factor: Tensor | float | None = None
    ) -> Tensor:
        """
        Args:
            x: the source, float (N, in_channels, h, w).
            size: (H, W) of the target. Going down H and W are h / 2 and w / 2, rounded up or (in
                networks without padding) down; going up any size; keeping, (h, w).
            factor: scalar by which the map is multiplied where it is smallest, or None for 1.

        Returns:
            float (N, out_channels, H, W).
        """
        x = self.lateral(x)
        if self.level_offset == -1:
            # Pooling rounds up; a target that was rounded down lacks the last row or column.
            x = self.downsample(x)[..., : size[0], : size[1]]
        x = scale_map(x, factor)
        return F.interpolate(x, size=size, mode="nearest") if self.level_offset == 1 else x


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
