"""Makes metrics.json of a resumed run what an undisturbed run would have written."""

import json
import os

from detectron2.engine import HookBase
from detectron2.utils import comm

from eseg_d2.engine.output_dir import set_aside
from eseg_d2.utils.files import write_atomically

__all__ = ["HistoryHook"]

WINDOW = 20  # values that Detectron2's writers smooth over


class HistoryHook(HookBase):
    """Keeps the last values of every scalar in the checkpoints.

    On resuming, the lines of iterations that are now done again, and broken ones, leave
    metrics.json. The line of the checkpoint's own iteration does, too: a run may be killed between
    a checkpoint and that line. :class:`~eseg_d2.engine.writers.WriterHook` writes it again.
    """

    def __init__(self, metrics_file: str):
        self._path = metrics_file
        self._loaded: dict[str, dict] = {}

    def before_train(self) -> None:
        storage, start = self.trainer.storage, self.trainer.start_iter
        for name, history in self._loaded.items():
            for value, iteration in history["values"]:
                storage.iter = iteration
                storage.put_scalar(name, value, smoothing_hint=history["smoothed"])
        storage.iter = start
        if start and comm.is_main_process() and os.path.isfile(self._path):
            self._drop_lines_from(start - 1)

    def state_dict(self) -> dict:
        if not hasattr(self.trainer, "storage"):  # it has not begun to train
            return {}
        storage = self.trainer.storage
        return {
            name: {
                "smoothed": storage.smoothing_hints()[name],
                "values": [(float(value), int(at)) for value, at in history.values()[-WINDOW:]],
            }
            for name, history in storage.histories().items()
            if storage.latest()[name][1] == self.trainer.iter  # else it is written already
        }

    def load_state_dict(self, state: dict) -> None:
        self._loaded = state

    def _drop_lines_from(self, start: int) -> None:
        with open(self._path, errors="replace") as f:
            lines = [(_iteration(line), line) for line in f]
        # a run that was killed may have left half of its last line
        if any(iteration is None for iteration, _ in lines[:-1]):
            folder, name = os.path.split(self._path)
            set_aside(folder, [name], f"{name} is damaged; its whole lines are taken over")
        kept = [line for iteration, line in lines if iteration is not None and iteration < start]
        write_atomically(self._path, lambda f: f.write("".join(kept).encode()))


def _iteration(line: str) -> float | None:
    """Return a line's iteration, or None if the line is damaged."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return None
