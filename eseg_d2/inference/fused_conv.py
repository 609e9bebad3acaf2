"""On a CPU: convolutions that pad and apply the activation behind them without further passes."""

from collections.abc import Callable
from itertools import pairwise

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from eseg_d2.modeling.fuse import FoldedNorm

__all__ = ["FusedConv2d", "fuse_conv_activation"]

# What PyTorch's compiler puts in the place of such a pair. It is no public function: if it goes,
# the modules are called one after the other.
_OPERATION: Callable | None = (
    getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    if torch.backends.mkldnn.is_available()
    else None
)
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
}


class FusedConv2d(nn.Module):
    """A convolution and its activation, one operation for float32 on a CPU.

    timm's ``Conv2dSame`` copies its input to pad it as TensorFlow does: an even size with a stride
    of 2 gets less on the left than on the right. Here the kernel gets a zero on its left instead,
    and the padding is symmetric.

    Shape:
        that of the convolution.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module):
        """
        Args:
            conv: one that :func:`fuse_conv_activation` takes.
            activation: a ReLU, ReLU6 or SiLU.
        """
        super().__init__()
        self.conv, self.activation = conv, activation
        self._name, self._limits = _ACTIVATIONS[type(activation)]
        if isinstance(conv, Conv2dSame):
            self._padding = tuple(size // 2 for size in conv.kernel_size)
            zeros = {(h, w): (w, 0, h, 0) for h in (0, 1) for w in (0, 1)}
            self._weights = {even: F.pad(conv.weight, pad) for even, pad in zeros.items()}

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        if _OPERATION is None or not _usable(x):
            return self.activation(conv(x))
        weight, padding = conv.weight, conv.padding
        if isinstance(conv, Conv2dSame):
            height, width = x.shape[-2:]
            weight, padding = self._weights[1 - height % 2, 1 - width % 2], self._padding
        sizes = padding, conv.stride, conv.dilation, conv.groups
        return _OPERATION(x, weight, conv.bias, *sizes, self._name, self._limits, "")


def fuse_conv_activation(model: nn.Module) -> None:
    """Fuse convolutions with the activations that are known to be called directly after them.

    These are the activations of timm's norms, and those in an ``nn.Sequential``. The order of other
    modules' children says nothing about the order in which they are called.

    Args:
        model: result of :func:`~eseg_d2.modeling.fuse.fuse_conv_norm` in its final memory format;
            changed in place.
    """
    for module in list(model.modules()):
        for (name, conv), (next_name, following) in pairwise(list(module.named_children())):
            activation = None
            if isinstance(following, FoldedNorm):
                activation = following[0]
            elif type(module) is nn.Sequential:
                activation = following
            if _fits(conv) and type(activation) in _ACTIVATIONS:
                setattr(module, name, FusedConv2d(conv, activation))  # type: ignore[arg-type]
                setattr(module, next_name, nn.Identity())


def _usable(x: Tensor) -> bool:
    graph = torch.jit.is_tracing() or torch.compiler.is_compiling()  # exporters do not know it
    mixed = torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and x.dtype == torch.float32 and not (graph or mixed)


def _fits(conv: nn.Module) -> bool:
    if not isinstance(conv, nn.Conv2d):
        return False
    if type(conv) is Conv2dSame:
        odd = all(size % 2 and size > 1 for size in conv.kernel_size)
        return odd and conv.stride == (2, 2) and conv.dilation == (1, 1)
    return type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and conv.padding != "same"
