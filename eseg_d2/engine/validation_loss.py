"""The training loss on data that is not trained on."""

from collections import defaultdict

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from timm.layers import DropPath
from torch import nn

from eseg_d2.data.datasets.panoptic import dataset_dicts, is_panoptic
from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.utils.random_state import preserved_random_state, seeded

__all__ = ["ValidationLossHook"]

_EVALUATED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, DropPath)


class ValidationLossHook(HookBase):
    """Adds ``validation/<loss>`` and ``validation/total_loss`` to the scalars, every so often.

    The losses are computed as in training on whole images of DATASETS.TEST in the test's size,
    without random augmentation: norms use their running statistics, dropout is off, and the random
    choices that losses make (of proposals) on the CPU are the same each time.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, period: int, num_images: int):
        """
        Args:
            cfg: of the run.
            model: that is evaluated, without a wrapper for several processes.
            period: iterations from one time to the next, and at the end.
            num_images: the first so many images of each data set; 0: all.

        Raises:
            ValueError: a data set of DATASETS.TEST is not a panoptic one.
        """
        if not cfg.DATASETS.TEST:
            raise ValueError("TEST.VALIDATION_LOSS.ENABLED is True, but DATASETS.TEST is empty")
        for name in cfg.DATASETS.TEST:
            if not is_panoptic(name):
                raise ValueError(
                    f"TEST.VALIDATION_LOSS.ENABLED is for panoptic data sets, and {name} is none: "
                    "set it to False"
                )
        self._cfg, self._model = cfg, model
        self._period, self._num_images = period, num_images

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self._period > 0 and done % self._period == 0):
            with preserved_random_state():
                losses = self._losses()
            if comm.is_main_process():
                self.trainer.storage.put_scalars(smoothing_hint=False, **losses)

    @torch.no_grad()
    def _losses(self) -> dict[str, float]:
        sums, count = defaultdict(float), 0
        modes = {module: module.training for module in self._model.modules()}
        self._model.train()
        for module in modes:
            if isinstance(module, _EVALUATED):
                module.eval()
        try:
            for sample in self._samples():
                with seeded(0, count):
                    losses = self._model([sample])
                for name, value in losses.items():
                    sums[name] += float(value)
                count += 1
        finally:
            for module, training in modes.items():
                module.training = training
        shares = comm.gather((dict(sums), count))
        if not comm.is_main_process():
            return {}
        total = sum(number for _, number in shares)
        names = [*dict.fromkeys(name for part, _ in shares for name in part)]
        means = {n: sum(part.get(n, 0.0) for part, _ in shares) / total for n in names}
        means["total_loss"] = sum(means.values())
        return {f"validation/{name}": value for name, value in means.items()}

    def _samples(self):
        """This process's share."""
        for name in self._cfg.DATASETS.TEST:
            images = dataset_dicts(name)[: self._num_images or None]
            mapper = PanopticMapper.for_validation(self._cfg, name)
            for image in images[comm.get_rank() :: comm.get_world_size()]:
                yield mapper(image)
