"""Signals that end a run: a training finishes its iteration and writes a checkpoint first."""

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

# Of Ctrl-C, of job schedulers that end a job, and of Slurm's --signal=USR1@60 before the time is up
_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")

# Handlers belong to the process, and so does what they note.
_first = 0
_training = False


class Stopped(SystemExit):
    """A signal has ended the run. The exit status is 128 and the signal's number.

    Attributes:
        signal: the number.
        sentence: for the user.
        agreed: whether all processes of the run stop, at the same place.
    """

    def __init__(self, number: int, sentence: str = "", *, agreed: bool = False):
        super().__init__(128 + number)
        self.signal, self.sentence, self.agreed = number, sentence, agreed


def requested() -> int:
    """Return the first signal that has asked this process to stop, or 0."""
    return _first


def is_training() -> bool:
    """Return whether this process is within :func:`finish_iterations`."""
    return _training


@contextlib.contextmanager
def stop_signals(
    forward: Callable[[int], None] | None = None, *, even_ignored: bool = False
) -> Iterator[None]:
    """Handle SIGINT, SIGTERM and SIGUSR1 within the context; a second SIGINT ends at once.

    The first signal raises :class:`Stopped`, or is only noted within :func:`finish_iterations`.
    Nothing is handled outside of the main thread, where Python allows no handlers.

    Args:
        forward: called with the number of each signal, in place of raising.
        even_ignored: handle SIGINT also if the process was started with it ignored, as shells do
            for commands in the background.
    """
    owner = os.getpid()

    def handle(number: int, frame) -> None:
        global _first
        if os.getpid() != owner:  # a worker that was forked: what ends it is not for the run
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
            raise Stopped(number, f"{name} has ended the run while nothing was in training.")

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            number = getattr(signal, name, None)  # not all systems have all
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
    """Only note signals within the context: whoever trains asks :func:`requested`."""
    global _training
    _training = True
    try:
        yield
    finally:
        _training = False


class StoppableEvaluator(DatasetEvaluator):
    """Evaluates as another evaluator does, and ends early in all processes if one is to stop."""

    def __init__(self, evaluator: DatasetEvaluator):
        self._evaluator = evaluator

    def reset(self) -> None:
        self._evaluator.reset()

    def process(self, inputs, outputs) -> None:
        if requested():
            self._stop_if_one_does()
        self._evaluator.process(inputs, outputs)

    def evaluate(self) -> dict | None:
        """
        Raises:
            Stopped: in all processes, if one of them has got a signal.
        """
        self._stop_if_one_does()
        return self._evaluator.evaluate()

    def _stop_if_one_does(self) -> None:
        """Each process calls this once: when it is told to stop, or after its last image."""
        if number := max(comm.all_gather(requested())):
            raise Stopped(number, agreed=True)
