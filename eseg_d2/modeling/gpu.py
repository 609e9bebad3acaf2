"""What training on GPUs switches: TF32, and activations that are computed twice, not kept."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from eseg_d2.layers.fusion import FusionNode
from eseg_d2.modeling.backbone.efficientnet import EfficientNet

__all__ = ["checkpoint_gradients", "set_precision"]


def set_precision(cfg: CfgNode) -> None:
    """Let GPUs compute float32 in TF32, or not, in this process.

    Args:
        cfg: MODEL.TF32 is read.
    """
    torch.backends.cuda.matmul.allow_tf32 = cfg.MODEL.TF32
    torch.backends.cudnn.allow_tf32 = cfg.MODEL.TF32


def checkpoint_gradients(model: Any, *, backbone: bool, bifpn: bool) -> None:
    """Keep of blocks only the inputs in training, and compute the rest again in the backward pass.

    Losses, gradients and the norms' running statistics stay the same; random numbers, too.

    Args:
        model: with a ``backbone``; changed in place.
        backbone: the residual blocks of ResNets and EfficientNets.
        bifpn: the nodes of the BiFPN.
    """
    blocks: list[Any] = []
    for module in model.backbone.modules():
        if (
            backbone
            and isinstance(module, CNNBlockBase)
            or bifpn
            and isinstance(module, FusionNode)
        ):
            blocks.append(module)
        elif backbone and isinstance(module, EfficientNet):
            blocks += [block for stage in module.network.blocks for block in stage]
    for block in blocks:
        block.forward = partial(_forward, block)


def _forward(block: nn.Module, *inputs):
    forward = partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs)

    def contexts():
        return contextlib.nullcontext(), _kept_statistics(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def _kept_statistics(block: nn.Module) -> Iterator[None]:
    """Batch norms see the batch a second time, and have counted it already."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count
