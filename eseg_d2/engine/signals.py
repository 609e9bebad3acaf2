"""Signals that end a run: a training first finishes its iteration and writes a checkpoint."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

__all__ = [
    "StoppableEvaluator",
    "Stopped",
    "finish_iterations",
    "is_training",
    "requested",
    "stop_signals",
]

# From Ctrl-C, from job schedulers that end a job, and from Slurm's --signal=USR1@60 before timeout
_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")

# Handlers belong to the process, and so does what they record.
_first = 0
_training = False


class Stopped(SystemExit):
    """A signal has ended the run. The exit status is 128 plus the signal's number.

    Attributes:
        signal: number of the signal.
        sentence: message for the user.
        agreed: whether all processes of the run stop at the same point.
    """

    def __init__(self, number: int, sentence: str = "", *, agreed: bool = False):
        super().__init__(128 + number)
        self.signal, self.sentence, self.agreed = number, sentence, agreed


def requested() -> int:
    """Return the first signal that asked this process to stop, or 0."""
    return _first


def is_training() -> bool:
    """Return whether this process is within :func:`finish_iterations`."""
    return _training


@contextlib.contextmanager
def stop_signals(
    forward: Callable[[int], None] | None = None, *, even_ignored: bool = False
) -> Iterator[None]:
    """Handle SIGINT, SIGTERM and SIGUSR1 in this context; a second SIGINT ends the process at once.

    The first signal raises :class:`Stopped`, or is only recorded within :func:`finish_iterations`.
    In threads other than the main one nothing is handled, because Python allows no handlers there.

    Args:
        forward: called with the number of each signal instead of raising.
        even_ignored: also handle SIGINT if the process was started with it ignored, as shells do
            for commands in the background.
    """
    owner = os.getpid()

    def handle(number: int, frame) -> None:
        global _first
        if os.getpid() != owner:  # a forked worker, whose end is not that of the run
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        is_first, _first = not _first, _first or number
        if forward:
            forward(number)
        elif is_first and not _training:
            name = signal.Signals(number).name
            raise Stopped(number, f"{name} ended the run while nothing was being trained.")

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            number = getattr(signal, name, None)  # some systems lack some of them
            ignored = number == signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN
            if number and (even_ignored or not ignored):
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def finish_iterations() -> Iterator[None]:
    """Only record signals within the context: the training asks :func:`requested`."""
    global _training
    _training = True
    try:
        yield
    finally:
        _training = False


class StoppableEvaluator(DatasetEvaluator):
    """Wraps an evaluator, and raises Stopped in all processes if one of them is asked to stop."""

    def __init__(self, evaluator: DatasetEvaluator):
        self._evaluator = evaluator

    def reset(self) -> None:
        self._evaluator.reset()

    def process(self, inputs, outputs) -> None:
        if requested():
            self._stop_if_one_does()
        self._evaluator.process(inputs, outputs)

    def evaluate(self) -> dict | None:
        self._stop_if_one_does()
        return self._evaluator.evaluate()

    def _stop_if_one_does(self) -> None:
        """Raise if one is to stop; each process calls this once, then or after its last image."""
        if number := max(comm.all_gather(requested())):
            raise Stopped(number, agreed=True)
