"""Load training batches in a reproducible order, skip bad samples, and explain workers that die."""

import itertools
import logging
import multiprocessing
import os
import random
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import torch
from detectron2.data.common import DatasetFromList
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.utils import comm
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from eseg_d2.utils.errors import BadSampleError, RunError
from eseg_d2.utils.random_state import seeded

__all__ = ["BatchPlan", "PartSampler", "SampleKey", "TrainLoader", "explained"]

logger = logging.getLogger(__name__)
SKIPPED = "skipped_samples"
ATTEMPTS = 10  # number of other images that are tried in place of a bad one
# errors of an image's files; Detectron2's own mappers let Pillow's errors through
_BAD = (BadSampleError, OSError, SyntaxError, SizeMismatchError, Image.DecompressionBombError)


class SampleKey(NamedTuple):
    """A sample of the endless stream: its position there, and the index of its image."""

    position: int
    image: int


class BatchPlan:
    """Plans whole batches, over all processes together.

    With ``groups``, only images of the same orientation share a batch, as with Detectron2's
    DATALOADER.ASPECT_RATIO_GROUPING; here in all processes at once.
    """

    def __init__(self, sampler, batch_size: int, groups: Sequence[int] | None = None):
        """
        Args:
            sampler: one of Detectron2's training samplers, with the same seed in all processes.
            batch_size: number of samples in a batch, over all processes.
            groups: group of each image; a batch holds images of a single group. None for no groups.
        """
        self._sampler = sampler
        self._batch_size = batch_size
        self._groups = groups
        self._position = 0
        self._waiting: dict[int, list[SampleKey]] = {}

    def __iter__(self) -> Iterator[list[SampleKey]]:
        # iterating over the sampler itself would give only this process's share of the stream
        indices = itertools.islice(self._sampler._infinite_indices(), self._position, None)
        for index in indices:
            group = self._groups[index] if self._groups else 0
            waiting = self._waiting.setdefault(group, [])
            waiting.append(SampleKey(self._position, int(index)))
            self._position += 1
            if len(waiting) >= self._batch_size:
                batch, waiting[:] = waiting[: self._batch_size], waiting[self._batch_size :]
                yield batch

    def state_dict(self) -> dict:
        """Return the position in the stream, and the samples that wait for their batch to fill."""
        waiting = {group: [tuple(key) for key in keys] for group, keys in self._waiting.items()}
        return {"position": self._position, "waiting": waiting}

    def load_state_dict(self, state: dict) -> None:
        self._position = state["position"]
        self._waiting = {
            group: [SampleKey(*key) for key in keys] for group, keys in state["waiting"].items()
        }


class PartSampler:
    """Yields a process's share of each batch, in one or several parts, to a ``DataLoader``.

    Sample j of a batch goes to process j modulo their number, so that a batch consists of the same
    samples, loaded in the same way, however many processes share it.

    Attributes:
        states: states of the plan after each batch; take one when its batch is used.
    """

    def __init__(self, plan: BatchPlan, *, rank: int, world_size: int, num_parts: int):
        self._plan = plan
        self._rank, self._world_size, self._num_parts = rank, world_size, num_parts
        self.states: deque[dict] = deque()

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for batch in self._plan:
            self.states.append(self._plan.state_dict())
            share = batch[self._rank :: self._world_size]
            size = len(share) // self._num_parts
            for part in range(self._num_parts):
                yield share[part * size : (part + 1) * size]


class _Unusable(NamedTuple):
    """Returned by a worker instead of a sample, because its exceptions arrive as tracebacks."""

    message: str


class _Samples(Dataset):
    """Loads samples that depend neither on the process nor on the time of loading."""

    def __init__(self, images: Sequence[dict], mapper: Callable[[dict], dict], seed: int):
        self._images, self._mapper, self._seed = images, mapper, seed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, key: SampleKey) -> dict | _Unusable:
        skipped = {}
        with seeded(self._seed, key.position):
            for index in self._candidates(key.image):
                image = self._images[index]
                try:
                    sample = self._mapper(image)
                except _BAD as e:
                    skipped[image["file_name"]] = f"{e}"
                except ValueError as e:
                    return _Unusable(str(e))
                else:
                    return {**sample, SKIPPED: skipped} if skipped else sample
        return _Unusable(f"{len(skipped)} images in a row cannot be used:{_lines(skipped)}")

    def _candidates(self, first: int) -> Iterator[int]:
        """Yield the index of the image, then of other images to replace it, without repetition."""
        yield first
        others = random.sample(range(len(self)), min(ATTEMPTS, len(self)))
        yield from (index for index in others if index != first)


class TrainLoader:
    """Iterates over this process's parts of the batches, each a list of mapped samples.

    The order and all random augmentations depend only on the seed and the position in the stream,
    not on the number of workers or processes, nor on where a run was interrupted.

    Attributes:
        bad_samples: reason for each file that was skipped so far.
    """

    def __init__(
        self,
        images: Sequence[dict],
        mapper: Callable[[dict], dict],
        sampler,
        *,
        batch_size: int,
        num_parts: int = 1,
        group_by_orientation: bool = True,
        num_workers: int = 0,
        prefetch: int = 1,
        pin_memory: bool = False,
        seed: int = 0,
        max_bad_samples: int = 0,
    ):
        """
        Args:
            images: dataset dicts with ``file_name``, and for grouping ``width`` and ``height``.
            mapper: maps such a dict to a sample. If it cannot read a file (BadSampleError, OSError
                or an error of Pillow's), another image is used; any other ValueError ends the run.
            sampler: one of Detectron2's training samplers, with the same seed in all processes.
            batch_size: number of samples in an update, over all processes.
            num_parts: number of parts in which the batch of an update is yielded.
            group_by_orientation: fill each batch with either wide or tall images.
            num_workers: number of worker processes; 0 loads in this process.
            prefetch: number of parts that each worker loads ahead, 1 or more.
            pin_memory: put samples into page-locked memory if there is a GPU.
            seed: seed of the augmentations, 0 or more.
            max_bad_samples: how many files may be bad before the run ends.

        Raises:
            ValueError: the batch is not divisible by processes and parts.
        """
        world_size = comm.get_world_size()
        if batch_size % (world_size * num_parts) or batch_size <= 0:
            raise ValueError(
                f"a batch of {batch_size} images cannot be shared equally by {world_size} "
                f"processes in {num_parts} parts: make it a multiple of {world_size * num_parts}"
            )
        groups = _orientations(images) if group_by_orientation else None
        self._plan = BatchPlan(sampler, batch_size, groups)
        self._rank, self._world_size, self._num_parts = comm.get_rank(), world_size, num_parts
        # serialised, so that workers share its memory
        self._samples = _Samples(DatasetFromList(images, copy=False), mapper, seed)
        self._num_workers = num_workers
        self._prefetch = prefetch if num_workers else None
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._max_bad_samples = max_bad_samples
        self._used = self._plan.state_dict()
        self.bad_samples: dict[str, str] = {}

    def __iter__(self) -> Iterator[list[dict]]:
        self._plan.load_state_dict(self._used)
        sampler = PartSampler(
            self._plan, rank=self._rank, world_size=self._world_size, num_parts=self._num_parts
        )
        loader = DataLoader(
            self._samples,
            batch_sampler=sampler,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch,
            pin_memory=self._pin_memory,
            collate_fn=_as_list,
            generator=torch.Generator().manual_seed(0),  # keeps the process's generator untouched
        )
        for number, part in enumerate(explained(loader), start=1):
            if number % self._num_parts == 0:
                self._used = sampler.states.popleft()
            yield [self._checked(sample) for sample in part]

    def state_dict(self) -> dict:
        """Return the position in the stream after the last batch that was yielded completely."""
        return {**self._used, "bad_samples": dict(self.bad_samples)}

    def load_state_dict(self, state: dict) -> None:
        """Set the state from which the next iterator continues."""
        self._used = {key: state[key] for key in ("position", "waiting")}
        self.bad_samples = dict(state["bad_samples"])

    def _checked(self, sample: dict | _Unusable) -> dict:
        if isinstance(sample, _Unusable):
            raise RunError(f"{sample.message}\n  tools/check_dataset.py checks all files.")
        for file, reason in sample.pop(SKIPPED, {}).items():
            self.count_bad_sample(file, reason)
        return sample

    def count_bad_sample(self, file: str, reason: str) -> None:
        """Count a file that was skipped, here or in another process; each file counts once.

        Raises:
            RunError: too many files are bad.
        """
        if file in self.bad_samples:
            return
        self.bad_samples[file] = reason
        number = len(self.bad_samples)
        logger.warning(
            "Bad sample %d (DATALOADER.MAX_BAD_SAMPLES is %d), another image takes its place: %s",
            number,
            self._max_bad_samples,
            reason,
        )
        if number > self._max_bad_samples:
            raise RunError(
                f"{number} samples cannot be used, but DATALOADER.MAX_BAD_SAMPLES is "
                f"{self._max_bad_samples}:{_lines(self.bad_samples)}\n  Repair or remove these "
                "files (tools/check_dataset.py finds all), or allow more."
            )


def _as_list(samples: list) -> list:
    return samples


def _orientations(images: Sequence[dict]) -> list[int]:
    """Return 0 for wide images and 1 for tall ones, as Detectron2 groups them."""
    return [0 if image.get("width", 1) > image.get("height", 0) else 1 for image in images]


def _lines(bad_samples: dict[str, str]) -> str:
    return "".join(f"\n  {file}: {reason}" for file, reason in bad_samples.items())


def explained(loader: DataLoader) -> Iterator[list]:
    """Yield the batches of a loader, which is iterated over once; explain it if a worker dies.

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
            f"use fewer DATALOADER.NUM_WORKERS (now {loader.num_workers}; 0 loads in the main "
            "process), smaller images, or more shared memory (docker run --shm-size 8g). --resume "
            "continues from the last checkpoint."
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
