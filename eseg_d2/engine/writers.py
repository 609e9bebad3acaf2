"""Where the figures of a run go: console and log file, metrics.json, TensorBoard, W&B."""

import datetime
import logging
import os
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import (
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)
from detectron2.utils.logger import setup_logger

__all__ = ["ConsoleWriter", "WandbWriter", "WriterHook", "build_writers", "log_to", "require_wandb"]

logger = logging.getLogger(__name__)

WINDOW = 20


class ConsoleWriter(EventWriter):
    """One line a period, into the console and log.txt."""

    def __init__(self, max_iter: int):
        self._max_iter = max_iter

    def write(self) -> None:
        storage = get_event_storage()
        histories = storage.histories()
        if storage.iter >= self._max_iter or "total_loss" not in histories:
            return  # after the training, or nothing was trained yet
        losses = [name for name in histories if "loss" in name and "/" not in name]
        losses.sort(key=lambda name: name != "total_loss")
        words = [f"iter {storage.iter + 1}/{self._max_iter}"]
        if "time" in histories:
            left = histories["time"].median(1000) * (self._max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            words.append(f"eta {datetime.timedelta(seconds=int(left))}")
        words += [f"{name} {histories[name].median(WINDOW):.4g}" for name in losses]
        formats = {
            "lr": "lr {:.5g}",
            "time": "{:.3f} s/iter",
            "images_per_second": "{:.3g} images/s",
            "data_share": "{:.0%} waiting for data",
            "max_mem": "{:.0f} MiB",
        }
        for name, text in formats.items():
            if name in histories:
                words.append(text.format(histories[name].median(WINDOW)))
        logger.info("  ".join(words))


class WandbWriter(EventWriter):
    """All scalars to Weights & Biases (``pip install wandb``; its own settings apply)."""

    def __init__(self, cfg: CfgNode):
        import wandb
        import yaml

        self._run = wandb.init(
            project=cfg.LOGGING.WANDB_PROJECT,
            name=os.path.basename(os.path.normpath(cfg.OUTPUT_DIR)),
            dir=cfg.OUTPUT_DIR,
            config=yaml.safe_load(cfg.dump()),
            resume="allow",
        )
        self._last = -1

    def write(self) -> None:
        latest = get_event_storage().latest_with_smoothing_hint(WINDOW)
        news = {name: value for name, (value, at) in latest.items() if at > self._last}
        if news:
            self._last = max(at for _, at in latest.values())
            self._run.log(news, step=self._last)

    def close(self) -> None:
        self._run.finish()


def log_to(output_dir: str) -> None:
    """This project's messages go to the console of the first process, and to log.txt."""
    own = logging.getLogger("eseg_d2")
    for handler in own.handlers[:]:
        own.removeHandler(handler)
    setup_logger(output_dir, comm.get_rank(), name="eseg_d2")


def require_wandb(cfg: CfgNode) -> None:
    """
    Raises:
        ValueError: LOGGING.WANDB is True, and wandb is not installed.
    """
    if not cfg.LOGGING.WANDB:
        return
    from importlib.util import find_spec

    if find_spec("wandb") is None:
        raise ValueError(
            "LOGGING.WANDB is True, but wandb is not installed: pip install wandb, or set it to "
            "False"
        )


def build_writers(cfg: CfgNode, start_iter: int, max_iter: int) -> list[EventWriter]:
    """The writers of the main process."""
    writers = [
        ConsoleWriter(max_iter),
        JSONWriter(os.path.join(cfg.OUTPUT_DIR, "metrics.json"), window_size=WINDOW),
        # events of a killed run that are written again are hidden
        TensorboardXWriter(cfg.OUTPUT_DIR, window_size=WINDOW, purge_step=start_iter),
    ]
    return [*writers, WandbWriter(cfg)] if cfg.LOGGING.WANDB else writers


class WriterHook(HookBase):
    """Calls the writers every so often, when something was evaluated, and at the end."""

    def __init__(
        self,
        build: Callable[[], list[EventWriter]],
        *,
        period: int,
        eval_period: int,
    ):
        """
        Args:
            build: makes the writers when the training starts.
            period: iterations from one writing to the next.
            eval_period: of the evaluations; 0 for none.

        Raises:
            ValueError: ``period`` is not positive.
        """
        if period < 1:
            raise ValueError(f"LOGGING.PERIOD is {period}; expected 1 or more iterations")
        self._build = build
        self._period, self._eval_period = period, eval_period
        self._writers: list[EventWriter] = []

    def before_train(self) -> None:
        self._writers = self._build()
        start = self.trainer.start_iter
        if start and self._is_due(start):  # the line that HistoryHook has taken out
            self.trainer.storage.iter = start - 1
            self._write()
            self.trainer.storage.iter = start

    def after_step(self) -> None:
        if self._is_due(self.trainer.iter + 1):
            self._write()

    def after_train(self) -> None:
        self._write()
        for writer in self._writers:
            writer.close()

    def _is_due(self, done: int) -> bool:
        evaluated = self._eval_period > 0 and done % self._eval_period == 0
        return done % self._period == 0 or evaluated or done == self.trainer.max_iter

    def _write(self) -> None:
        # TensorBoard opens its file each time; that the folder was deleted, CheckpointHook says
        os.makedirs(self.trainer.cfg.OUTPUT_DIR, exist_ok=True)
        for writer in self._writers[:]:
            try:
                writer.write()
            except FileNotFoundError as e:  # it was deleted at this very moment
                logger.error("%s writes no more: %s", type(writer).__name__, e)
                self._writers.remove(writer)
