"""Folding what inference knows beforehand: batch norms into convolutions, weights of fusions."""

import copy
from itertools import pairwise

from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from eseg_d2.layers.fusion import FusionNode, WeightedFusion
from eseg_d2.layers.separable_conv import ConvNorm, SeparableConv2d
from eseg_d2.modeling.sem_seg.eseg_head import ESegHead

__all__ = ["FoldedNorm", "fuse_conv_norm"]


class FoldedNorm(nn.Sequential):
    """What is left of timm's norm with an activation after folding: that activation."""


def fuse_conv_norm(model: nn.Module) -> nn.Module:
    """Return a copy of a model for inference with its batch norms folded into convolutions.

    It knows Detectron2's ``Conv2d`` with a norm, our ``ConvNorm``, and timm's blocks, which list a
    norm directly after its convolution. Other norms stay. The normalised weights of fusions become
    constants, and go into a 1x1 convolution where the edge has one.

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
        if factor is None or not isinstance(lateral, ConvNorm):
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
