"""A progress bar below the log lines, on a terminal."""

import contextlib
import logging
import sys

import tqdm
from detectron2.engine import HookBase
from tqdm.contrib.logging import logging_redirect_tqdm

__all__ = ["ProgressHook"]


class ProgressHook(HookBase):
    """Nothing happens where standard error is no terminal."""

    def __init__(self):
        self._shown = contextlib.ExitStack()
        self._bar = None

    def before_train(self) -> None:
        if not sys.stderr.isatty():
            return
        loggers = [logging.getLogger(name) for name in ("detectron2", "eseg_d2", "fvcore")]
        self._shown.enter_context(logging_redirect_tqdm(loggers))
        self._bar = self._shown.enter_context(
            tqdm.tqdm(
                initial=self.trainer.start_iter,
                total=self.trainer.max_iter,
                desc="training",
                unit="iter",
                dynamic_ncols=True,
            )
        )

    def after_step(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def after_train(self) -> None:
        self._shown.close()
