"""The loader of images for evaluation: their order, and broken files."""

import os

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

import eseg_d2  # noqa: F401, registers
from eseg_d2.data.loaders import build_test_loader
from eseg_d2.utils.errors import RunError

NAME = "broken_for_evaluation"


@pytest.fixture
def images(scenes, tmp_path):
    """Register a copy of a data set as NAME, and return the paths of its images."""
    records = []
    for record in DatasetCatalog.get("scenes_cityscapes_panoptic_val"):
        path = tmp_path / os.path.basename(record["file_name"])
        with open(record["file_name"], "rb") as f:
            path.write_bytes(f.read())
        records.append({**record, "file_name": str(path)})
    DatasetCatalog.register(NAME, lambda: records)
    yield [record["file_name"] for record in records]
    DatasetCatalog.remove(NAME)


def build(num_workers):
    cfg = get_cfg()
    cfg.DATALOADER.NUM_WORKERS = num_workers
    cfg.INPUT.MIN_SIZE_TEST = 32
    return build_test_loader(cfg, NAME)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_every_image_is_loaded_once_in_order(images, num_workers):
    loader = build(num_workers)
    assert len(loader) == len(images) == len(loader.dataset)
    batches = list(loader)
    assert [[sample["file_name"] for sample in batch] for batch in batches] == [[i] for i in images]
    assert batches[0][0]["image"].shape == (3, 32, 64)


def damage(path, fault):
    with open(path, "rb") as f:
        data = f.read()
    contents = {"empty": b"", "cut": data[: len(data) // 2], "no image": b"<html>404</html>"}
    contents["damaged"] = contents["cut"] + bytes(len(data) // 2)
    if fault == "missing":
        os.remove(path)
        return
    with open(path, "wb") as f:
        f.write(contents[fault])


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("fault", ["empty", "cut", "no image", "damaged", "missing"])
def test_broken_image_ends_the_evaluation_and_is_named(images, num_workers, fault):
    damage(images[2], fault)
    seen = []
    with pytest.raises(RunError, match="cannot read the image|no such file") as error:
        for (sample,) in build(num_workers):
            seen.append(sample["file_name"])
    assert seen == images[:2]
    assert images[2] in str(error.value)
    assert "check_dataset.py" in str(error.value)
