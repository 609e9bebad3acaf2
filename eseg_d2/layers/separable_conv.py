"""Convolutions of the pyramid: depthwise separable, and any convolution with its norm."""

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["ConvNorm", "SeparableConv2d", "init_conv"]


def init_conv(conv: nn.Conv2d) -> nn.Conv2d:
    """Initialise a convolution in place so that it keeps its input's variance, and return it.

    Uniform weights of variance 1 / fan_in and a zero bias: what Detectron2's FPN does (our choice;
    it is what keeps pyramids without a norm in range, and is immaterial before a batch norm).
    """
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class SeparableConv2d(nn.Module):
    """A depthwise convolution without bias, then a 1x1 (pointwise) convolution with bias.

    The order and the biases are EfficientDet's (arXiv 1911.09070 and its public code). There is no
    norm and no activation inside; :class:`ConvNorm` adds the first.

    Shape:
        float (N, in_channels, H, W) to (N, out_channels, H, W); the border is padded with zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3):
        """
        Args:
            kernel_size: height and width of the depthwise kernel, an odd number of pixels.

        Raises:
            ValueError: `kernel_size` is even or not positive.
        """
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size of a SeparableConv2d is {kernel_size}; an odd number >= 1 is "
                "expected, so that the output keeps the size of the input"
            )
        self.depthwise = init_conv(
            nn.Conv2d(
                in_channels,
                in_channels,
                kernel_size,
                padding=kernel_size // 2,
                groups=in_channels,
                bias=False,
            )
        )
        self.pointwise = init_conv(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class ConvNorm(nn.Module):
    """A convolution followed by its norm, which also trains where a channel has a single value.

    In training a batch norm needs more than one value per channel, and PyTorch refuses less. The
    top of a pyramid does come down to that: a 1x1 map and a batch of one. There, and only there,
    the norm uses its running statistics and leaves them as they are (our choice). It is then an
    affine map with trained scale and shift, the same in training and in inference, and gradients
    reach everything. SyncBN among several processes never goes that way: it has the values of the
    other processes, and one that stayed out would leave the others waiting.

    Shape:
        what `conv` takes to what `conv` gives; the norm keeps the shape.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module | None):
        """
        Args:
            conv: the convolution, or a module of several such as :class:`SeparableConv2d`.
            norm: a norm over (N, C, H, W), or None for none.
        """
        super().__init__()
        self.conv = conv
        self.norm = nn.Identity() if norm is None else norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        norm = self.norm
        if norm.training and isinstance(norm, _BatchNorm) and _is_single_value(norm, x):
            return F.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        return norm(x)


def _is_single_value(norm: _BatchNorm, x: Tensor) -> bool:
    """Whether the batch statistics of `x` (N, C, H, W) would be over one value per channel."""
    # Plain BatchNorm2d is the only batch norm that never talks to other processes.
    shares = type(norm) is not nn.BatchNorm2d and dist.is_available() and dist.is_initialized()
    values = x.shape[0] * x.shape[2] * x.shape[3]
    return values == 1 and not (shares and dist.get_world_size() > 1)
