"""Folding for inference: batch norms, weights of fusions, and on a CPU padding and activations."""

import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from detectron2.layers import FrozenBatchNorm2d
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from eseg_d2.layers.fusion import FusionNode, WeightedFusion
from eseg_d2.layers.separable_conv import ConvNorm, SeparableConv2d
from eseg_d2.modeling.sem_seg.eseg_head import ESegHead

__all__ = ["FoldedNorm", "FusedConv2d", "fuse_conv_activation", "fuse_conv_norm"]

# What PyTorch's compiler puts in the place of a convolution and its activation. It is no public
# function: if it goes, the modules are called one after the other.
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


class FoldedNorm(nn.Sequential):
    """What is left of timm's norm with an activation after folding: that activation."""


def fuse_conv_norm(model: nn.Module) -> nn.Module:
    """Return a copy of a model for inference with its batch norms folded into convolutions.

    It knows Detectron2's ``Conv2d`` with a norm, our ``ConvNorm``, and timm's blocks, which list a
    norm directly after its convolution. Other norms stay. The normalised weights of fusions become
    constants, and go into a 1x1 convolution where the edge has one; edges of weight 0 are left out.

    Args:
        model: in evaluation mode; not changed.

    Returns:
        The same function up to rounding, with fewer operations. It cannot be trained.

    Raises:
        ValueError: the model is in training mode.
    """
    if model.training:
        raise ValueError("fuse_conv_norm got a model in training mode; call model.eval() first")
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        if isinstance(module, ConvNorm):
            conv = module.conv
            _fold_norm_of(module, conv.pointwise if isinstance(conv, SeparableConv2d) else conv)
        elif isinstance(module, WeightedFusion):
            module.freeze()
        elif isinstance(module, nn.Conv2d) and _is_batch_norm(getattr(module, "norm", None)):
            _fold(module, module.norm)
            module.norm = None  # type: ignore[assignment]
        else:
            _fuse_neighbours(module)
    for module in model.modules():
        if isinstance(module, FusionNode):
            _fold_factors(module)
        if isinstance(module, (FusionNode, ESegHead)):
            module.activation.inplace = True  # without a gradient its input is not needed again
    return model.requires_grad_(False)


def _fold_norm_of(module: ConvNorm, conv: nn.Module) -> None:
    if isinstance(conv, nn.Conv2d) and _is_batch_norm(module.norm):
        _fold(conv, module.norm)
        module.norm = nn.Identity()


def _fold_factors(node: FusionNode) -> None:
    """Scale the 1x1 convolutions of edges: maxima and copies commute with a factor >= 0."""
    for i, (edge, factor) in enumerate(zip(node.edges, node.fusion.factors(), strict=True)):
        lateral = edge.lateral
        if not factor or not isinstance(lateral, ConvNorm):
            continue
        if isinstance(lateral.norm, nn.Identity) and node.fusion.constants:
            for parameter in lateral.conv.parameters():
                parameter.data.mul_(factor)
            node.fusion.constants[i] = None


def _fuse_neighbours(module: nn.Module) -> None:
    """timm's blocks: of a norm with an activation the activation stays."""
    for (_, conv), (name, norm) in pairwise(list(module.named_children())):
        is_norm_act = hasattr(norm, "act") and hasattr(norm, "drop")
        if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm) and is_norm_act:
            _fold(conv, norm)
            setattr(module, name, FoldedNorm(norm.get_submodule("act")))


def _is_batch_norm(norm) -> bool:
    return isinstance(norm, (_BatchNorm, FrozenBatchNorm2d))


def _fold(conv: nn.Conv2d, norm) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        nn.Parameter(norm.weight) if not isinstance(norm.weight, nn.Parameter) else norm.weight,
        norm.bias,
    )


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
        model: result of :func:`fuse_conv_norm` in its final memory format; changed in place.
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
