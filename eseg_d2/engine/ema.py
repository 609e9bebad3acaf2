"""Exponential moving average of a model's weights during training."""

from detectron2.engine import HookBase
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["EMAHook"]


class EMAHook(HookBase):
    """Updates the average after every iteration: parameters and running statistics.

    Attributes:
        model: the averaged model, with the state dict of the trained one.
    """

    def __init__(self, trained: nn.Module, decay: float):
        """
        Args:
            trained: the model in training, without a wrapper for several processes.
            decay: w_ema <- decay * w_ema + (1 - decay) * w.

        Raises:
            ValueError: ``decay`` is not in [0, 1).
        """
        if not 0 <= decay < 1:
            raise ValueError(f"MODEL_EMA.DECAY is {decay}; expected a number in [0, 1)")
        self._trained = trained
        average = get_ema_multi_avg_fn(decay)
        self._averaged = AveragedModel(trained, multi_avg_fn=average, use_buffers=True)
        self.model = self._averaged.module

    def after_step(self) -> None:
        self._averaged.update_parameters(self._trained)

    def start_from_average(self) -> None:
        """Give the trained model the average's weights, which were just loaded."""
        self._trained.load_state_dict(self.model.state_dict())

    def continue_at(self, iteration: int) -> None:
        """Go on averaging, after the average was loaded from a checkpoint of this iteration."""
        self._averaged.n_averaged.fill_(iteration)
