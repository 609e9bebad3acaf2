import itertools
from collections import Counter

import pytest
import torch
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from eseg_d2.data.train_loader import BatchPlan, PartSampler, SampleKey

FEW = settings(max_examples=50, deadline=None)
SAMPLERS = {
    "training": lambda size: TrainingSampler(size, seed=3),
    "in order": lambda size: TrainingSampler(size, shuffle=False, seed=3),
    "subset": lambda size: RandomSubsetTrainingSampler(size, 0.6, seed_shuffle=3, seed_subset=4),
    "repeated": lambda size: RepeatFactorTrainingSampler(
        torch.linspace(1, 2.5, size).double(), seed=3
    ),
}


def take(iterable, number):
    return list(itertools.islice(iterable, number))


@st.composite
def plans(draw):
    """A function that makes equal plans of a batch size."""
    size = draw(st.integers(2, 30))
    kind = draw(st.sampled_from(sorted(SAMPLERS)))
    groups = draw(st.none() | st.lists(st.integers(0, 2), min_size=size, max_size=size))
    return lambda batch_size: BatchPlan(SAMPLERS[kind](size), batch_size, groups)


@FEW
@given(plans(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_processes_and_parts_share_a_batch(make, world_size, num_parts, each):
    batch_size = world_size * num_parts * each
    batches = take(make(batch_size), 5)
    seen = [[] for _ in batches]
    for rank in range(world_size):
        sampler = PartSampler(
            make(batch_size), rank=rank, world_size=world_size, num_parts=num_parts
        )
        parts = take(sampler, num_parts * len(batches))
        assert {len(part) for part in parts} == {each}
        assert len(sampler.states) == len(batches)
        for number, part in enumerate(parts):
            seen[number // num_parts] += part
    assert [sorted(batch) for batch in seen] == [sorted(batch) for batch in batches]


@FEW
@given(st.integers(1, 20), st.integers(1, 7), st.data())
def test_every_image_once_an_epoch(size, batch_size, data):
    groups = data.draw(st.none() | st.lists(st.integers(0, 1), min_size=size, max_size=size))
    plan = BatchPlan(TrainingSampler(size, seed=0), batch_size, groups)
    epochs = 3
    keys = [key for batch in take(plan, -(-epochs * size // batch_size)) for key in batch]
    waiting = plan.state_dict()["waiting"]
    keys += [SampleKey(*key) for keys in waiting.values() for key in keys]
    positions = sorted(key.position for key in keys)
    assert positions == list(range(len(positions)))  # nothing is left out
    counts = Counter(key.index for key in keys if key.position < epochs * size)
    assert counts == dict.fromkeys(range(size), epochs)


@FEW
@given(st.lists(st.integers(0, 3), min_size=2, max_size=20), st.integers(1, 5))
def test_batches_are_of_one_group(groups, batch_size):
    plan = BatchPlan(TrainingSampler(len(groups), seed=1), batch_size, groups)
    for batch in take(plan, 12):
        assert len(batch) == batch_size
        assert len({groups[key.index] for key in batch}) == 1
        assert batch == sorted(batch)


@FEW
@given(plans(), st.integers(1, 6), st.integers(0, 12))
def test_a_state_continues_exactly(make, batch_size, done):
    plan = make(batch_size)
    batches = iter(plan)
    take(batches, done)
    state = plan.state_dict()
    expected = take(batches, 8)
    other = make(batch_size)
    other.load_state_dict(state)
    assert take(other, 8) == expected
    again = make(batch_size)
    again.load_state_dict(state)  # which the other one has not changed
    assert take(again, 8) == expected


@FEW
@given(plans(), st.integers(1, 8), st.integers(1, 8), st.integers(0, 8))
def test_another_batch_size_loses_no_sample(make, before, after, done):
    plan = make(before)
    keys = [key for batch in take(plan, done) for key in batch]
    other = make(after)
    other.load_state_dict(plan.state_dict())
    for batch in take(other, 20):
        assert len(batch) == after
        keys += batch
    keys += [SampleKey(*key) for keys in other.state_dict()["waiting"].values() for key in keys]
    assert sorted(key.position for key in keys) == list(range(len(keys)))


def test_a_state_goes_through_a_file(tmp_path):
    plan = BatchPlan(TrainingSampler(9, seed=0), 4, [0, 1, 0] * 3)
    take(plan, 3)
    torch.save(plan.state_dict(), tmp_path / "state.pth")
    expected = take(plan, 5)
    other = BatchPlan(TrainingSampler(9, seed=0), 4, [0, 1, 0] * 3)
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert take(other, 5) == expected


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_order_is_the_samplers(kind):
    plan = BatchPlan(SAMPLERS[kind](10), 4)
    indices = [key.index for batch in take(plan, 6) for key in batch]
    assert indices == take(SAMPLERS[kind](10), 24)
