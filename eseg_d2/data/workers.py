"""What a data worker's death mostly means."""

import os
from collections.abc import Callable, Iterator
from functools import partial

from torch.utils.data import DataLoader

from eseg_d2.errors import RunError

__all__ = ["explained"]


def explained(loader: DataLoader, num_workers: int) -> Iterator[list]:
    """The loader's batches.

    Args:
        loader: is iterated over once.
        num_workers: that it has, for the message.

    Raises:
        RunError: a worker process was killed.
    """
    loader.worker_init_fn = partial(_start, loader.worker_init_fn)
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as e:
            if "DataLoader worker" not in str(e):
                raise
            raise RunError(
                f"a data worker has died: {e}\n  Mostly it ran out of memory, or of shared memory "
                f"(df -h /dev/shm): use fewer DATALOADER.NUM_WORKERS (now {num_workers}; 0 loads "
                "in the main process), smaller images, or more shared memory (docker run "
                "--shm-size 8g). --resume goes on from the last checkpoint."
            ) from e
        yield batch


def _start(then: Callable[[int], None] | None, worker: int) -> None:
    """Leave the group: Ctrl-C in a terminal, or a scheduler's signal, is for the training alone."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    if then:
        then(worker)
