"""Which samples are in which batch, decided in the main process, so that it can be resumed."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["BatchPlan", "PartSampler", "SampleKey"]


class SampleKey(NamedTuple):
    """One sample of the endless stream: its place there, and the place of its image."""

    position: int
    index: int


class BatchPlan:
    """Whole batches, as all processes together see them.

    Images of the same orientation share a batch if ``groups`` says which it is, as by Detectron2's
    DATALOADER.ASPECT_RATIO_GROUPING; here for all processes at once.
    """

    def __init__(self, sampler, batch_size: int, groups: Sequence[int] | None = None):
        """
        Args:
            sampler: one of Detectron2's training samplers, with the same seed in all processes.
            batch_size: samples of a batch, over all processes.
            groups: for each image the group whose images may share a batch; None: all may.
        """
        self._sampler = sampler
        self._batch_size = batch_size
        self._groups = groups
        self._position = 0
        self._waiting: dict[int, list[SampleKey]] = {}

    def __iter__(self) -> Iterator[list[SampleKey]]:
        # Detectron2's samplers hand out their processes' shares; the whole stream is this one
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
        """Where the stream is, and the samples that wait for their batch to become full."""
        waiting = {group: [tuple(key) for key in keys] for group, keys in self._waiting.items()}
        return {"position": self._position, "waiting": waiting}

    def load_state_dict(self, state: dict) -> None:
        self._position = state["position"]
        self._waiting = {
            group: [SampleKey(*key) for key in keys] for group, keys in state["waiting"].items()
        }


class PartSampler:
    """A process's share of each batch, in one or several parts; for ``DataLoader(batch_sampler=)``.

    Sample j of a batch is for process j modulo their number, so that the same samples, loaded in
    the same way, are in a batch however many processes share it.

    Attributes:
        states: those of the plan after each batch, to be taken when the batch is used.
    """

    def __init__(self, plan: BatchPlan, *, rank: int, world_size: int, num_parts: int):
        self._plan = plan
        self._rank, self._world_size, self._num_parts = rank, world_size, num_parts
        self.states = deque()

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for batch in self._plan:
            self.states.append(self._plan.state_dict())
            share = batch[self._rank :: self._world_size]
            size = len(share) // self._num_parts
            for part in range(self._num_parts):
                yield share[part * size : (part + 1) * size]
