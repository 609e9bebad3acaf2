"""Write the metrics of a run to the console, log file, metrics.json, TensorBoard and W&B."""

import contextlib
import datetime
import json
import logging
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec

import tqdm
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
from tqdm.contrib.logging import logging_redirect_tqdm

from eseg_d2.engine.output_dir import set_aside
from eseg_d2.utils.files import write_atomically

__all__ = [
    "ConsoleWriter",
    "HistoryHook",
    "ProgressHook",
    "WandbWriter",
    "WriterHook",
    "build_writers",
    "log_to",
    "require_wandb",
]

logger = logging.getLogger(__name__)

WINDOW = 20  # number of iterations over which medians are taken


class ConsoleWriter(EventWriter):
    """Writes one line per period to the console and log.txt."""

    def __init__(self, max_iter: int):
        self._max_iter = max_iter

    def write(self) -> None:
        storage = get_event_storage()
        histories = storage.histories()
        if storage.iter >= self._max_iter or "total_loss" not in histories:
            return  # after the training, or before its first iteration
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
    """Writes all scalars to Weights & Biases (``pip install wandb``; its own settings apply)."""

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
    """Send this package's log messages to the console of the first process, and to log.txt."""
    own = logging.getLogger("eseg_d2")
    for handler in own.handlers[:]:
        own.removeHandler(handler)
    setup_logger(output_dir, comm.get_rank(), name="eseg_d2")


def require_wandb(cfg: CfgNode) -> None:
    """Raise a ValueError if LOGGING.WANDB is True, but wandb is not installed."""
    if cfg.LOGGING.WANDB and find_spec("wandb") is None:
        raise ValueError(
            "LOGGING.WANDB is True, but wandb is not installed: pip install wandb, or set it to "
            "False"
        )


def build_writers(cfg: CfgNode, start_iter: int, max_iter: int) -> list[EventWriter]:
    """Build the writers of the main process."""
    writers = [
        ConsoleWriter(max_iter),
        JSONWriter(os.path.join(cfg.OUTPUT_DIR, "metrics.json"), window_size=WINDOW),
        # purge_step hides the events of a killed run that are written again
        TensorboardXWriter(cfg.OUTPUT_DIR, window_size=WINDOW, purge_step=start_iter),
    ]
    return [*writers, WandbWriter(cfg)] if cfg.LOGGING.WANDB else writers


class WriterHook(HookBase):
    """Calls the writers periodically, after every evaluation, and at the end."""

    def __init__(self, build: Callable[[], list[EventWriter]], period: int, eval_period: int):
        """
        Args:
            build: builds the writers when the training starts.
            period: LOGGING.PERIOD; values below 1 are a ValueError.
            eval_period: TEST.EVAL_PERIOD.
        """
        if period < 1:
            raise ValueError(f"LOGGING.PERIOD is {period}; expected 1 or more iterations")
        self._build = build
        self._period, self._eval_period = period, eval_period
        self._writers: list[EventWriter] = []

    def before_train(self) -> None:
        self._writers = self._build()
        start = self.trainer.start_iter
        if start and self._is_due(start):  # the line that HistoryHook removed
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
        # TensorBoard opens its file each time; CheckpointHook reports that the folder was deleted
        os.makedirs(self.trainer.cfg.OUTPUT_DIR, exist_ok=True)
        for writer in self._writers[:]:
            try:
                writer.write()
            except FileNotFoundError as e:  # the folder was deleted at this very moment
                logger.error("%s stops writing: %s", type(writer).__name__, e)
                self._writers.remove(writer)


class HistoryHook(HookBase):
    """Keeps the last values of every scalar in the checkpoints.

    On resuming, it removes from metrics.json broken lines and those of iterations that are done
    again. It also removes the line of the checkpoint's own iteration, because a run may be killed
    between a checkpoint and that line; :class:`WriterHook` writes it again.
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
        if not hasattr(self.trainer, "storage"):  # training has not started
            return {}
        storage = self.trainer.storage
        return {
            name: {
                "smoothed": storage.smoothing_hints()[name],
                "values": [(float(value), int(at)) for value, at in history.values()[-WINDOW:]],
            }
            for name, history in storage.histories().items()
            if storage.latest()[name][1] == self.trainer.iter  # else it is already written
        }

    def load_state_dict(self, state: dict) -> None:
        self._loaded = state

    def _drop_lines_from(self, start: int) -> None:
        with open(self._path, errors="replace") as f:
            lines = [(_iteration(line), line) for line in f]
        # a run that was killed may have left half of its last line
        if any(iteration is None for iteration, _ in lines[:-1]):
            folder, name = os.path.split(self._path)
            set_aside(folder, [name], f"{name} is damaged; its intact lines are copied")
        kept = [line for iteration, line in lines if iteration is not None and iteration < start]
        write_atomically(self._path, lambda f: f.write("".join(kept).encode()))


def _iteration(line: str) -> float | None:
    """Return a line's iteration, or None if the line is damaged."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return None


class ProgressHook(HookBase):
    """Shows a progress bar below the log lines if standard error is a terminal."""

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
