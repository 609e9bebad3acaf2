"""Images a second, the share of waiting for data, and memory."""

import resource

import torch
from detectron2.engine import HookBase

__all__ = ["ThroughputHook"]


class ThroughputHook(HookBase):
    """Adds ``images_per_second``, ``data_share`` (0..1) and ``max_mem`` (MiB) to the scalars.

    To be registered after Detectron2's ``IterationTimer``, whose times it uses.
    """

    def __init__(self, images_per_step: int, device: torch.device):
        """
        Args:
            images_per_step: of one update, over all processes.
            device: of the model. Memory is the GPU's, by PyTorch; without one the process's.
        """
        self._images = images_per_step
        self._device = device

    def after_step(self) -> None:
        storage = self.trainer.storage
        latest = storage.latest()
        if "time" not in latest or latest["time"][1] != self.trainer.iter:
            return  # Detectron2 leaves the first iterations out
        seconds = latest["time"][0]
        data = latest["data_time"][0] if "data_time" in latest else 0.0
        storage.put_scalar("images_per_second", self._images / seconds)
        storage.put_scalar("data_share", min(data / seconds, 1.0))
        storage.put_scalar("max_mem", self._memory(), smoothing_hint=False)

    def _memory(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
