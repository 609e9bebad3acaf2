"""Data workers that die: noticed where their batch is waited for, and explained."""

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
    """Yield the loader's batches.

    Args:
        loader: iterated over once.
        num_workers: the loader's number of worker processes, for the message.

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
        if not dead and "DataLoader worker" in str(e):  # died before the iterator was there
            dead = [str(e).rstrip(". ")]
        if not dead:
            raise
        raise RunError(
            f"{' and '.join(dead)}. Mostly memory was full, or shared memory (df -h /dev/shm): "
            f"use fewer DATALOADER.NUM_WORKERS (now {num_workers}; 0 loads in the main process), "
            "smaller images, or more shared memory (docker run --shm-size 8g). --resume goes on "
            "from the last checkpoint."
        ) from e


def _start(loader: DataLoader) -> Iterator[list]:
    """Return the loader's iterator, without PyTorch's handler of SIGCHLD.

    The handler raises in whatever the main thread does when a worker dies: in backward, or while a
    checkpoint is written. Without it the loader notices the death when it next waits for a batch.
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
    """Return how a worker has ended, or None if it lives."""
    worker.join(0.1)  # its connections close shortly before it is seen to have ended
    if worker.exitcode is None:
        return None
    if worker.exitcode < 0:
        how = f"was killed by {signal.Signals(-worker.exitcode).name}"
    else:
        how = f"has ended with status {worker.exitcode}"
    return f"data worker {worker.pid} {how}"


def _leave_group(then: Callable[[int], None] | None, worker: int) -> None:
    """Leave the group: Ctrl-C in a terminal, or a scheduler's signal, is for the training alone."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    if then:
        then(worker)
