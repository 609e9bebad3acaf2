"""Levels of a pyramid that no head takes, whose parameters nothing trains."""

import logging

import torch
from detectron2.modeling import Backbone
from torch import nn

__all__ = ["freeze_unused_levels"]

logger = logging.getLogger(__name__)


def freeze_unused_levels(model: nn.Module) -> None:
    """Freeze the parameters of the backbone that no head can train, and say so.

    A head that takes some levels of a pyramid only leaves others without a gradient, for which
    several processes would wait. Which levels it takes is told by its attributes, named
    "in_features" or "..._in_features" as those of Detectron2's heads are.

    Args:
        model: one of Detectron2's meta-architectures, changed in place.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone):
        return
    own = set(backbone.modules())
    attributes = [item for m in model.modules() if m not in own for item in vars(m).items()]
    lists = [v for k, v in attributes if k.endswith("in_features") and isinstance(v, list | tuple)]
    levels, used = backbone.output_shape().keys(), {name for names in lists for name in names}
    if not used & levels or used >= levels:
        return
    unused = _without_gradient(backbone, used & levels)
    if unused:
        others = ", ".join(sorted(levels - used))
        logger.warning("No head takes %s: %d parameters are frozen", others, len(unused))
    for parameter in unused:
        parameter.requires_grad_(False)


def _without_gradient(backbone: Backbone, used: set[str]) -> list[nn.Parameter]:
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    was_training = backbone.training
    backbone.eval()  # no norm learns from this image
    size = 2 * max(backbone.size_divisibility, 32)
    with torch.enable_grad():
        features = backbone(torch.zeros(1, 3, size, size, device=parameters[0].device))
        total = sum(features[name].sum() for name in used)
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    backbone.train(was_training)
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is None]
