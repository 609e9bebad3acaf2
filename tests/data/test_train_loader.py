"""The training loader: the order of samples, resuming, and bad samples."""

import itertools
import json
import os
import random
import shutil
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from special_files import BREAKS, break_file
from torch.utils.data import DataLoader

import eseg_d2  # noqa: F401, registers
from eseg_d2.data import train_loader
from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.data.train_loader import BatchPlan, PartSampler, SampleKey, TrainLoader
from eseg_d2.engine import load_config
from eseg_d2.utils.errors import BadSampleError, RunError

IMAGES = [
    {"file_name": f"{i}.jpg", "width": 8, "height": 4 if i % 3 else 9, "number": i}
    for i in range(11)
]


def drawing(image: dict) -> dict:
    """Map an image to random numbers from every generator."""
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    return {"file_name": image["file_name"], "drawn": drawn}


class Failing:
    """A mapper to which some of the files are bad."""

    def __init__(self, bad, error=BadSampleError):
        self._bad, self._error = bad, error

    def __call__(self, image: dict) -> dict:
        if image["number"] in self._bad:
            raise self._error(f"{image['file_name']} is broken")
        return drawing(image)


def make_loader(mapper=drawing, images=IMAGES, **options):
    options = {"batch_size": 4, "seed": 5, **options}
    return TrainLoader(images, mapper, TrainingSampler(len(images), seed=5), **options)


def take(iterable, number=8):
    return list(itertools.islice(iterable, number))


@pytest.mark.parametrize("gpu", [True, False])
def test_memory_is_pinned_only_for_a_gpu(gpu, monkeypatch):
    options = {}

    def recorded(samples, **kwargs):
        options.update(kwargs)
        return DataLoader(samples, **{**kwargs, "pin_memory": False})

    monkeypatch.setattr(train_loader.torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(train_loader, "DataLoader", recorded)
    assert take(make_loader(pin_memory=True), 1)
    assert options["pin_memory"] is gpu
    assert take(make_loader(), 1)
    assert options["pin_memory"] is False


@pytest.mark.parametrize("num_workers, prefetch", [(1, 2), (2, 1)])
def test_samples_do_not_depend_on_the_workers(num_workers, prefetch):
    for mapper in drawing, Failing({3}):
        options = {"mapper": mapper, "num_parts": 2, "max_bad_samples": 1}
        expected = take(make_loader(**options))
        workers = {"num_workers": num_workers, "prefetch": prefetch}
        assert take(make_loader(**options, **workers)) == expected


def test_samples_depend_only_on_the_seed_of_the_loader():
    expected = take(make_loader())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = torch.get_rng_state()
    assert take(make_loader()) == expected
    assert torch.equal(torch.get_rng_state(), before)
    assert take(make_loader(seed=6)) != expected


def test_augmentation_of_an_image_differs_each_time():
    samples = sum(take(make_loader(), 30), [])
    assert len({sample["drawn"] for sample in samples}) == len(samples)


def test_orientations_are_grouped_if_wanted():
    def kinds(parts):
        heights = {image["file_name"]: image["height"] for image in IMAGES}
        return [{heights[sample["file_name"]] for sample in part} for part in parts]

    assert all(len(kind) == 1 for kind in kinds(take(make_loader(), 20)))
    assert any(len(kind) == 2 for kind in kinds(take(make_loader(group_by_orientation=False), 20)))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("done", range(6))
def test_resuming_continues_with_the_first_incomplete_batch(tmp_path, num_workers, done):
    options = {"num_parts": 2, "num_workers": num_workers}
    expected = take(make_loader(**options), 10)
    first = make_loader(**options)
    assert take(first, done) == expected[:done]
    torch.save(first.state_dict(), tmp_path / "state.pth")
    second = make_loader(**options)
    second.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    begin = done - done % 2  # a batch of which only one part was used is repeated
    assert take(second, 4) == expected[begin : begin + 4]


def test_new_iterator_continues_where_the_last_one_stopped():
    expected = take(make_loader(), 6)
    loader = make_loader()
    assert take(loader, 2) + take(loader, 4) == expected


def test_batch_size_must_be_a_multiple_of_the_parts():
    for batch_size, num_parts in (4, 3), (0, 1), (-2, 1):
        with pytest.raises(ValueError, match=f"batch of {batch_size} images.*{num_parts} parts"):
            make_loader(batch_size=batch_size, num_parts=num_parts)


def test_bad_samples_are_replaced_and_counted_once(caplog):
    bad = {2, 5, 7}
    loader = make_loader(Failing(bad), max_bad_samples=3)
    samples = sum(take(loader, 30), [])
    assert len(samples) == 120
    assert {sample["file_name"] for sample in samples} == {
        image["file_name"] for image in IMAGES if image["number"] not in bad
    }
    assert all(sample.keys() == {"file_name", "drawn"} for sample in samples)
    assert loader.bad_samples == {f"{i}.jpg": f"{i}.jpg is broken" for i in bad}
    assert len([r for r in caplog.records if "another image takes its place" in r.message]) == 3


def test_bad_samples_do_not_change_the_others():
    expected = sum(take(make_loader(), 10), [])
    samples = sum(take(make_loader(Failing({4}), max_bad_samples=1), 10), [])
    same = [a == b for a, b in zip(samples, expected, strict=True)]
    assert same == [sample["file_name"] != "4.jpg" for sample in expected]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_bad_samples_end_the_run(num_workers):
    loader = make_loader(Failing({2, 5, 7}), max_bad_samples=2, num_workers=num_workers)
    with pytest.raises(RunError, match="3 samples.*MAX_BAD_SAMPLES is 2") as error:
        take(loader, 30)
    for file in "2.jpg", "5.jpg", "7.jpg":
        assert str(error.value).count(f"{file}: {file} is broken") == 1
    assert "check_dataset.py" in str(error.value)


def test_the_only_good_image_is_always_found():
    """A run must not end by chance, however many replacements it needs."""
    images = IMAGES[:2]
    samples = sum(take(make_loader(Failing({0}), images, max_bad_samples=1), 800), [])
    assert {sample["file_name"] for sample in samples} == {"1.jpg"}


@pytest.mark.parametrize("num_images", [1, 3, 11])
def test_a_run_of_bad_images_ends_the_loading(num_images):
    loader = make_loader(Failing(range(20)), IMAGES[:num_images], max_bad_samples=1000)
    with pytest.raises(RunError, match=r"\d+ images in a row cannot be used:(\n  \d+.jpg: .*)+"):
        take(loader, 1)


def test_bad_samples_are_part_of_the_state():
    first = make_loader(Failing({2, 5}), max_bad_samples=2)
    take(first, 10)
    second = make_loader(Failing({2, 5, 7}), max_bad_samples=2)
    second.load_state_dict(first.state_dict())
    assert second.bad_samples == first.bad_samples
    with pytest.raises(RunError, match="3 samples(.|\n)*2.jpg"):
        take(second, 30)


def test_errors_other_than_bad_samples_end_the_run():
    with pytest.raises(RunError, match="4.jpg is broken.*\n.*check_dataset"):
        take(make_loader(Failing({4}, ValueError), max_bad_samples=100), 20)
    with pytest.raises(KeyError):  # a bug keeps its traceback
        take(make_loader(Failing({4}, KeyError), max_bad_samples=100), 20)


class RecordingPid:
    """A mapper that appends the id of its process to a file."""

    def __init__(self, path):
        self._path = path

    def __call__(self, image: dict) -> dict:
        with open(self._path, "a") as f:
            f.write(f"{os.getpid()}\n")
        return drawing(image)


def test_killed_worker_is_explained(tmp_path):
    batches = iter(make_loader(RecordingPid(tmp_path / "pid"), num_workers=1))
    next(batches)
    os.kill(int((tmp_path / "pid").read_text().split()[0]), signal.SIGKILL)
    message = r"data worker \d+ was killed by SIGKILL.*NUM_WORKERS .now 1.*shm"
    with pytest.raises(RunError, match=message):
        take(batches, 20)


# --- Files on disk


@pytest.fixture
def records(scenes, tmp_path):
    """Return records of the COCO scenes, with their files copied to ``tmp_path``."""
    found = []
    for record in DatasetCatalog.get("scenes_coco_panoptic_val"):
        keys = "file_name", "pan_seg_file_name"
        found.append({**record, **{key: shutil.copy(record[key], tmp_path) for key in keys}})
    return found


@pytest.fixture
def scenes_loader(root, monkeypatch, records):
    monkeypatch.chdir(root)
    cfg = load_config("configs/scenes/rsp_panoptic_R18_coco.yaml", ["INPUT.MIN_SIZE_TRAIN", "32,"])
    mapper = PanopticMapper(cfg, "scenes_coco_panoptic_train")
    return lambda **options: make_loader(mapper, records, **{"max_bad_samples": 1, **options})


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        # a jpg with zeros at its end can still be decoded
        *(("file_name", fault) for fault in BREAKS if fault != "damaged"),
        *(("pan_seg_file_name", fault) for fault in (*BREAKS, "missing")),
        ("file_name", "missing"),
    ],
)
def test_broken_files_are_replaced_or_end_the_run(records, scenes_loader, key, fault):
    path = records[1][key]
    break_file(path, fault)
    loader = scenes_loader()
    samples = sum(take(loader, 4), [])
    ((file, reason),) = loader.bad_samples.items()
    assert file == records[1]["file_name"] and path in reason
    assert ("3600000000 pixels" in reason) == (fault == "huge")
    assert file not in {sample["file_name"] for sample in samples}
    with pytest.raises(RunError, match="1 samples.*MAX_BAD_SAMPLES is 0") as error:
        take(scenes_loader(max_bad_samples=0, num_workers=1), 4)
    assert path in str(error.value)


@pytest.mark.parametrize("fault", BREAKS)
def test_bad_files_are_found_under_mappers_of_detectron2(records, fault):
    """These mappers pass on the errors of Pillow, which are of many kinds."""
    cfg = get_cfg()
    path = records[1]["pan_seg_file_name"]
    images = [{"file_name": r["pan_seg_file_name"], "height": 64, "width": 128} for r in records]
    break_file(path, fault)
    loader = make_loader(DatasetMapper(cfg, True, augmentations=[]), images, max_bad_samples=1)
    take(loader, 4)
    assert list(loader.bad_samples) == [path]


def test_bad_samples_of_other_processes_are_counted_once(tmp_path):
    loader = make_loader(max_bad_samples=1)
    loader.count_bad_sample("a.jpg", "broken")
    loader.count_bad_sample("a.jpg", "broken")
    assert json.dumps(loader.bad_samples) == '{"a.jpg": "broken"}'
    with pytest.raises(RunError, match="a.jpg: broken\n  b.jpg: gone"):
        loader.count_bad_sample("b.jpg", "gone")


FEW = settings(max_examples=50, deadline=None)
SAMPLERS = {
    "training": lambda size: TrainingSampler(size, seed=3),
    "in order": lambda size: TrainingSampler(size, shuffle=False, seed=3),
    "subset": lambda size: RandomSubsetTrainingSampler(size, 0.6, seed_shuffle=3, seed_subset=4),
    "repeated": lambda size: RepeatFactorTrainingSampler(
        torch.linspace(1, 2.5, size).double(), seed=3
    ),
}


@st.composite
def plans(draw):
    """Draw a function from a batch size to equal plans."""
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
    assert positions == list(range(len(positions)))  # none is left out
    counts = Counter(key.image for key in keys if key.position < epochs * size)
    assert counts == dict.fromkeys(range(size), epochs)


@FEW
@given(st.lists(st.integers(0, 3), min_size=2, max_size=20), st.integers(1, 5))
def test_each_batch_has_images_of_one_group(groups, batch_size):
    plan = BatchPlan(TrainingSampler(len(groups), seed=1), batch_size, groups)
    for batch in take(plan, 12):
        assert len(batch) == batch_size
        assert len({groups[key.image] for key in batch}) == 1
        assert batch == sorted(batch)


@FEW
@given(plans(), st.integers(1, 6), st.integers(0, 12))
def test_loaded_state_continues_exactly(make, batch_size, done):
    plan = make(batch_size)
    batches = iter(plan)
    take(batches, done)
    state = plan.state_dict()
    expected = take(batches, 8)
    other = make(batch_size)
    other.load_state_dict(state)
    assert take(other, 8) == expected
    again = make(batch_size)
    again.load_state_dict(state)  # the first plan has not changed it
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


@pytest.mark.parametrize("kind", SAMPLERS)
def test_order_of_images_is_that_of_the_sampler(kind):
    plan = BatchPlan(SAMPLERS[kind](10), 4)
    indices = [key.image for batch in take(plan, 6) for key in batch]
    assert indices == take(SAMPLERS[kind](10), 24)
