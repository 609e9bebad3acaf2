"""Learning rates of a resumed run: the configuration's, at the place that the checkpoint gives."""

import copy
import logging

import torch

__all__ = ["ConfiguredRates"]

logger = logging.getLogger(__name__)


class ConfiguredRates:
    """Puts the configuration's rates back after a checkpoint was loaded.

    Checkpoints hold the rates, decays and the schedule of the run that wrote them, and PyTorch
    takes these: a SOLVER.BASE_LR that was changed for the resumed run would do nothing, and a
    larger SOLVER.MAX_ITER would lead beyond the end of a polynomial schedule.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scheduler):
        """
        Args:
            optimizer: new, with the configuration's settings.
            scheduler: of its learning rates, with ``base_lrs`` and ``last_epoch``.
        """
        self._optimizer, self._scheduler = optimizer, scheduler
        state = copy.deepcopy(scheduler.state_dict())
        self._schedule = {key: value for key, value in state.items() if not key.startswith("_")}
        self._settings = [
            {key: value for key, value in group.items() if key not in ("params", "lr")}
            for group in optimizer.param_groups
        ]

    def restore(self, iteration: int) -> None:
        """
        Args:
            iteration: that comes next; from here the schedule goes on.
        """
        before = [group["lr"] for group in self._optimizer.param_groups]
        for group, settings in zip(self._optimizer.param_groups, self._settings, strict=True):
            group.update(settings)
        self._scheduler.load_state_dict({**copy.deepcopy(self._schedule), "last_epoch": iteration})
        rates = self._scheduler.get_lr()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if rates != before:
            logger.warning(
                "The learning rate is %.5g from here on, by this configuration; the checkpoint's "
                "was %.5g",
                rates[0],
                before[0],
            )
