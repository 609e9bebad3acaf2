"""Makes metrics.json of a resumed run what an undisturbed run would have written."""

import json
import os

from detectron2.engine import HookBase
from detectron2.utils import comm

from eseg_d2.engine.atomic import write_atomically

__all__ = ["HistoryHook"]

WINDOW = 20  # values that Detectron2's writers smooth over


class HistoryHook(HookBase):
    """Keeps the last values of what is smoothed in the checkpoints.

    On resuming, lines of iterations that are now done again, and broken ones, leave metrics.json.
    """

    def __init__(self, metrics_file: str):
        self._path = metrics_file
        self._loaded: dict[str, list[tuple[float, int]]] = {}

    def before_train(self) -> None:
        storage = self.trainer.storage
        for name, values in self._loaded.items():
            for value, iteration in values:
                storage.iter = iteration
                storage.put_scalar(name, value)
        storage.iter = self.trainer.start_iter
        if self.trainer.start_iter and comm.is_main_process() and os.path.isfile(self._path):
            self._drop_lines_from(self.trainer.start_iter)

    def state_dict(self) -> dict:
        if not hasattr(self.trainer, "storage"):  # it has not begun to train
            return {}
        smoothed = self.trainer.storage.smoothing_hints()
        histories = self.trainer.storage.histories()
        return {
            name: [
                (float(value), int(iteration)) for value, iteration in history.values()[-WINDOW:]
            ]
            for name, history in histories.items()
            if smoothed[name] and "loss" in name
        }

    def load_state_dict(self, state: dict) -> None:
        self._loaded = state

    def _drop_lines_from(self, start: int) -> None:
        with open(self._path) as f:
            kept = [line for line in f if _iteration(line) < start]
        write_atomically(self._path, lambda f: f.write("".join(kept).encode()))


def _iteration(line: str) -> float:
    try:
        return json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
