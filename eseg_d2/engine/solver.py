"""The optimizer, its gradients, and its learning rates in a resumed run."""

import copy
import logging
from collections.abc import Callable, Iterable

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from eseg_d2.utils.errors import check_choice

__all__ = ["ConfiguredRates", "build_clipping", "build_optimizer", "gradient_norm"]

logger = logging.getLogger(__name__)

Clipping = Callable[[list[nn.Parameter]], None]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build Detectron2's optimizer, with one group for all parameters of equal settings.

    Detectron2 0.6 makes a group for each parameter, and PyTorch updates group by group: hundreds of
    small calls instead of a few. It does not clip gradients; see :func:`build_clipping`. The groups
    name their parameters ("param_names"), and so do checkpoints.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    optimizer = build_detectron2_optimizer(cfg, model)
    groups: dict[tuple, dict] = {}
    for group in optimizer.param_groups:
        settings = tuple((key, value) for key, value in group.items() if key != "params")
        groups.setdefault(settings, {**group, "params": []})["params"] += group["params"]
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in groups.values():
        group["param_names"] = [names[parameter] for parameter in group["params"]]
    optimizer.param_groups = list(groups.values())
    return optimizer


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Return the 2-norm of all gradients together, a scalar; 0 if there are none."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def build_clipping(cfg: CfgNode) -> Clipping | None:
    """Return the clipping that SOLVER.CLIP_GRADIENTS asks for, or None.

    "value" and "norm" (of each parameter) equal Detectron2's, but clip all parameters at once;
    "full_model" clips the norm of all gradients together, as most projects on Detectron2 do.

    Raises:
        ValueError: CLIP_TYPE is unknown.
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


class ConfiguredRates:
    """Restores the config's learning rates after a checkpoint was loaded.

    Checkpoints hold the rates, decays and schedule of the run that wrote them, which PyTorch would
    use: a SOLVER.BASE_LR that was changed for the resumed run would have no effect, and a larger
    SOLVER.MAX_ITER would lead beyond the end of a polynomial schedule.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scheduler: LRScheduler):
        """
        Args:
            optimizer: a new optimizer, with the config's settings.
            scheduler: scheduler of its learning rates, with ``base_lrs`` and ``last_epoch``.
        """
        self._optimizer, self._scheduler = optimizer, scheduler
        state = copy.deepcopy(scheduler.state_dict())
        self._schedule = {key: value for key, value in state.items() if not key.startswith("_")}
        self._settings = [
            {key: value for key, value in group.items() if key not in ("params", "lr")}
            for group in optimizer.param_groups
        ]

    def restore(self, iteration: int) -> None:
        """Set the rates and the schedule for the next iteration."""
        before = [group["lr"] for group in self._optimizer.param_groups]
        for group, settings in zip(self._optimizer.param_groups, self._settings, strict=True):
            group.update(settings)
        self._scheduler.load_state_dict({**copy.deepcopy(self._schedule), "last_epoch": iteration})
        rates = self._scheduler.get_lr()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if rates != before:
            logger.warning(
                "The learning rate is %.5g from here on, as this config says; the checkpoint's "
                "was %.5g",
                rates[0],
                before[0],
            )
