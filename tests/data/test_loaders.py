"""The loader of images for evaluation: their order, and broken files."""

import shutil

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from special_files import break_file

import eseg_d2  # noqa: F401, registers
from eseg_d2.data.loaders import build_test_loader
from eseg_d2.utils.errors import RunError

NAME = "broken_for_evaluation"


@pytest.fixture
def images(scenes, tmp_path):
    """Register a copy of a data set as NAME, and return the paths of its images."""
    records = [
        {**record, "file_name": shutil.copy(record["file_name"], tmp_path)}
        for record in DatasetCatalog.get("scenes_cityscapes_panoptic_val")
    ]
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


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("fault", ["empty", "cut", "no image", "damaged", "missing"])
def test_broken_image_ends_the_evaluation_and_is_named(images, num_workers, fault):
    break_file(images[2], fault)
    seen = []
    with pytest.raises(RunError, match="cannot read the image|no such file") as error:
        for (sample,) in build(num_workers):
            seen.append(sample["file_name"])
    assert seen == images[:2]
    assert images[2] in str(error.value)
    assert "check_dataset.py" in str(error.value)
