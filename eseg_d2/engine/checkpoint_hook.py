"""Periodic checkpoints, of which the last few are kept."""

import contextlib
import os

from detectron2.engine import HookBase
from detectron2.utils import comm

from eseg_d2.engine.checkpoint import SafeCheckpointer, find_checkpoints
from eseg_d2.engine.provenance import RUN_FILE
from eseg_d2.utils.errors import RunError
from eseg_d2.utils.random_state import get_random_state

__all__ = ["CheckpointHook"]


class CheckpointHook(HookBase):
    """Saves ``model_<iteration>.pth`` every so often and ``model_final.pth`` at the end.

    To be registered in all processes: the states of their random numbers go into the file.
    """

    def __init__(self, checkpointer: SafeCheckpointer, period: int, keep: int):
        """
        Args:
            checkpointer: saves the trainer.
            period: iterations from one to the next; 0 or less: only at the end.
            keep: so many of the newest stay on the disk; 0 keeps all. Those of earlier runs in the
                same folder are left alone.

        Raises:
            ValueError: ``keep`` is negative.
        """
        if keep < 0:
            raise ValueError(f"SOLVER.CHECKPOINTS_TO_KEEP is {keep}; expected 0 (all) or more")
        self._checkpointer = checkpointer
        self._period = period
        self._keep = keep
        self._own: list[str] = []
        self._is_saved = True
        self._run_file = os.path.join(checkpointer.save_dir, RUN_FILE)

    def before_train(self) -> None:
        self._has_run_file = os.path.isfile(self._run_file)
        if self.trainer.start_iter > 0:
            paths = find_checkpoints(self._checkpointer.save_dir)
            self._own = sorted(p for p in paths if not p.endswith("_final.pth"))

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        self._is_saved = False
        if done >= self.trainer.max_iter or (self._period > 0 and done % self._period == 0):
            self.save()

    def save(self) -> None:
        """Save the last iteration that was done, in all processes, unless it is saved already."""
        if self._is_saved:
            return
        self._is_saved = True
        self.trainer.random_states = comm.gather(get_random_state())
        if comm.is_main_process():
            is_last = self.trainer.iter + 1 >= self.trainer.max_iter
            self._save("model_final" if is_last else f"model_{self.trainer.iter:07d}")

    def _save(self, name: str) -> None:
        """
        Raises:
            RunError: after saving, if the folder has been deleted since the training began: log and
                metrics still go into files that nobody can see.
        """
        is_deleted = self._has_run_file and not os.path.isfile(self._run_file)
        folder = self._checkpointer.save_dir
        self._checkpointer.save(name, iteration=self.trainer.iter)
        path = os.path.join(folder, f"{name}.pth")
        if is_deleted:
            raise RunError(
                f"OUTPUT_DIR {folder!r} was deleted while the run went on: what was there is gone. "
                f"{path} has been written anew: go on from it with --resume."
            )
        self._remove_old(path)

    def _remove_old(self, newest: str) -> None:
        if newest.endswith("_final.pth") or newest in self._own:
            return
        self._own.append(newest)
        while self._keep and len(self._own) > self._keep:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._own.pop(0))
