"""Detect and explain the death of data workers, where the loader waits for their batch."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess

from torch.utils.data import DataLoader

from eseg_d2.utils.errors import RunError

__all__ = ["explained"]


def explained(loader: DataLoader, num_workers: int) -> Iterator[list]:
    """Yield the loader's batches; explain it if a worker dies.

    Args:
        loader: loader to iterate over once.
        num_workers: its number of worker processes, for the message.

    Raises:
        RunError: a worker process has died.
    """
    loader.worker_init_fn = partial(_leave_group, loader.worker_init_fn)
    before = multiprocessing.active_children()
    workers = []
    try:
        batches = _start(loader)
        workers += [child for child in multiprocessing.active_children() if child not in before]
        yield from batches
    except Exception as e:
        dead = [end for end in map(_end_of, workers) if end]
        if not dead and "DataLoader worker" in str(e):  # died before the iterator existed
            dead = [str(e).rstrip(". ")]
        if not dead:
            raise
        raise RunError(
            f"{' and '.join(dead)}. Usually memory or shared memory (df -h /dev/shm) is full: "
            f"use fewer DATALOADER.NUM_WORKERS (now {num_workers}; 0 loads in the main process), "
            "smaller images, or more shared memory (docker run --shm-size 8g). --resume continues "
            "from the last checkpoint."
        ) from e


def _start(loader: DataLoader) -> Iterator[list]:
    """Return the loader's iterator, without PyTorch's handler of SIGCHLD.

    When a worker dies, the handler raises in whatever the main thread is doing, such as a backward
    pass or writing a checkpoint. Without it, the loader notices when it next waits for a batch.
    """
    previous = signal.getsignal(signal.SIGCHLD)
    if previous is None or getattr(previous, "__module__", "").startswith("torch."):
        previous = signal.SIG_DFL
    try:
        return iter(loader)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, previous)


def _end_of(worker: BaseProcess) -> str | None:
    """Return how a worker ended, or None if it is alive."""
    worker.join(0.1)  # its connections close shortly before its end is visible
    if worker.exitcode is None:
        return None
    if worker.exitcode < 0:
        how = f"was killed by {signal.Signals(-worker.exitcode).name}"
    else:
        how = f"exited with status {worker.exitcode}"
    return f"data worker {worker.pid} {how}"


def _leave_group(then: Callable[[int], None] | None, worker: int) -> None:
    """Leave the process group: Ctrl-C and a scheduler's signals are only for the training."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    if then:
        then(worker)
