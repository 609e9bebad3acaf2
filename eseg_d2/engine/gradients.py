"""Gradients: their norm, and Detectron2's clipping for all parameters at once."""

from collections.abc import Callable, Iterable

import torch
from detectron2.config import CfgNode

from eseg_d2.utils.errors import check_choice

__all__ = ["build_clipping", "gradient_norm"]

Clipping = Callable[[list[torch.nn.Parameter]], None]


def gradient_norm(parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
    """The 2-norm of all gradients together, a scalar; 0 if there are none."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def build_clipping(cfg: CfgNode) -> Clipping | None:
    """What SOLVER.CLIP_GRADIENTS asks for, or None.

    "value" and "norm" (of each parameter) are Detectron2's, a hundred small steps faster;
    "full_model" clips the norm of all gradients together, as most projects on Detectron2 do.

    Raises:
        ValueError: an unknown CLIP_TYPE.
    """
    options = cfg.SOLVER.CLIP_GRADIENTS
    if not options.ENABLED:
        return None
    check_choice("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", options.CLIP_TYPE, tuple(_KINDS))
    clip, limit, order = _KINDS[options.CLIP_TYPE], options.CLIP_VALUE, options.NORM_TYPE
    return lambda parameters: clip([p for p in parameters if p.grad is not None], limit, order)


def _by_value(parameters: list, limit: float, order: float) -> None:
    torch.nn.utils.clip_grad_value_(parameters, limit)


def _by_norm(parameters: list, limit: float, order: float) -> None:
    gradients = [p.grad for p in parameters]
    norms = torch._foreach_norm(gradients, order)
    factors = torch.clamp(limit / (torch.stack(norms) + 1e-6), max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))


def _by_full_norm(parameters: list, limit: float, order: float) -> None:
    torch.nn.utils.clip_grad_norm_(parameters, limit, norm_type=order)


_KINDS = {"value": _by_value, "norm": _by_norm, "full_model": _by_full_norm}
