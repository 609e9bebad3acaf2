"""Valid data sets, including unusual ones, have no errors and no warnings."""

import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from eseg_d2.apps.doctor import check_datasets, sources_from_config, sources_from_names
from eseg_d2.data.datasets.panoptic_format import register_own
from eseg_d2.data.panoptic_png import read_panoptic_png


@pytest.mark.parametrize("kind", ["coco", "cityscapes"])
def test_built_in_scenes_are_valid(scenes, kind):
    names = [f"scenes_{kind}_panoptic_{split}" for split in ("train", "val")]
    report = check_datasets(sources_from_names(names), workers=2)
    assert [f for f in report.findings if f.severity != "note"] == []
    assert [d.records for d in report.datasets] == [12, 4]
    assert [d.checked for d in report.datasets] == [12, 4]


def test_statistics_of_the_tiny_data_set(tiny):
    report = tiny.check()
    assert report.findings == []
    train = report.datasets[0].as_dict()
    road, car, sky = train["classes"]
    assert (train["images"], train["segments"], train["tiny_things"]) == (3, 15, 6)
    assert train["void_share"] == pytest.approx(1 - 20 * 36 / (24 * 40))
    assert (road["segments"], road["images"]) == (3, 3)
    # Crowds never count as tiny
    assert (car["segments"], car["images"], car["tiny_things"]) == (
        9,
        3,
        6,
    )
    assert sky["pixel_share"] == pytest.approx(6 * 36 / (24 * 40))


def test_splits_of_one_image_are_valid(tiny):
    for split in tiny.train, tiny.val:
        for index in range(1, len(split.images)):
            split.image(index).unlink()
        del split.images[1:], split.annotations[1:]
    assert tiny.check().findings == []


def test_data_set_of_stuff_only_is_valid(tiny):
    for split in tiny.train, tiny.val:
        del split.categories[1]
        for index, annotation in enumerate(split.annotations):
            del annotation["segments_info"][2:]
            split.redraw(lambda ids: ids.__setitem__(ids >= 70000, 0), index)
    assert tiny.check().findings == []


def test_grey_image_is_valid(tiny):
    Image.open(tiny.train.image()).convert("L").save(tiny.train.image())
    assert tiny.check().findings == []


def test_png_image_with_alpha_is_valid(tiny):
    image = Image.open(tiny.train.image()).convert("RGBA")
    tiny.train.image().unlink()
    tiny.train.images[0]["file_name"] = "a.b/one.png"
    (tiny.train.root / "images/a.b").mkdir()
    image.save(tiny.train.root / "images/a.b/one.png")
    assert tiny.check().findings == []


def test_image_that_exif_rotates_to_the_size_of_its_png_is_valid(tiny):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(tiny.train.image()).transpose(Image.Transpose.ROTATE_90)
    turned.save(tiny.train.image(), exif=exif)
    assert tiny.check().findings == []


def test_boxes_that_leave_out_their_last_pixel_are_valid(tiny):
    for segment in tiny.train.segments():
        segment["bbox"][2] -= 1
        segment["bbox"][3] -= 1
    assert tiny.check().findings == []


def test_largest_segment_id_is_valid(tiny):
    tiny.train.redraw(lambda ids: ids.__setitem__(ids == 300, 0xFFFFFF))
    tiny.train.segments()[1]["id"] = 0xFFFFFF
    assert tiny.check().findings == []


def test_areas_and_boxes_of_noise_are_counted_exactly():
    from eseg_d2.data.panoptic_png import count_segments

    ids = np.random.default_rng(0).integers(0, 9, (13, 17))
    found = count_segments(ids)
    assert sorted(found) == np.unique(ids).tolist()
    for id_, (area, (x, y, w, h)) in found.items():
        rows, columns = np.nonzero(ids == id_)
        assert area == len(rows)
        assert (x, y, x + w - 1, y + h - 1) == (
            columns.min(),
            rows.min(),
            columns.max(),
            rows.max(),
        )


def test_train_and_val_may_share_a_folder_of_images(tiny):
    for index in range(2):
        shutil.copy(tiny.val.image(index), tiny.train.root / "images")
    cfg = tiny.config()
    cfg.DATASETS.PANOPTIC[1]["images"] = cfg.DATASETS.PANOPTIC[0]["images"]
    assert check_datasets(sources_from_config(cfg), workers=1).findings == []


def test_pngs_may_lie_inside_the_folder_of_images(tiny):
    (tiny.train.root / "pngs").rename(tiny.train.root / "images" / "pngs")
    cfg = tiny.config()
    cfg.DATASETS.PANOPTIC[0]["panoptic_png"] = str(tiny.train.root / "images" / "pngs")
    assert check_datasets(sources_from_config(cfg), workers=1).findings == []


def test_alpha_channel_of_a_png_is_ignored(tiny):
    """Some tools write an alpha channel, which leaves the segment ids unchanged."""
    before = [read_panoptic_png(str(tiny.train.png(index))) for index in range(3)]
    for index in range(3):
        image = Image.open(tiny.train.png(index)).convert("RGBA")
        image.putalpha(Image.fromarray(np.arange(960, dtype=np.uint8).reshape(24, 40)))
        image.save(tiny.train.png(index))
        assert (read_panoptic_png(str(tiny.train.png(index))) == before[index]).all()
    report = tiny.check()
    assert report.findings == []
    assert report.datasets[0].all_pixels == 3 * 960


def as_floats(value):
    if isinstance(value, dict):
        return {key: as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_floats(item) for item in value]
    return float(value) if type(value) is int else value


def test_whole_floats_as_written_by_pandas_and_matlab_are_valid(tiny):
    tiny.train.content = as_floats(tiny.train.content)
    assert tiny.check().findings == []
    cfg = tiny.config()
    register_own(cfg.DATASETS.PANOPTIC)
    floats, _ = (DatasetCatalog.get(name) for name in ("tiny_train", "tiny_val"))
    assert floats[0]["image_id"] == 11 and type(floats[0]["image_id"]) is int
    assert floats[0]["segments_info"][0]["category_id"] == 0
    assert [s["iscrowd"] for s in floats[0]["segments_info"]] == [0, 0, 0, 0, 1]


def test_flags_may_be_true_and_false(tiny):
    for segment in tiny.train.segments():
        segment["iscrowd"] = bool(segment["iscrowd"])
    for split in tiny.train, tiny.val:
        for category in split.categories:
            category["isthing"] = bool(category["isthing"])
    assert tiny.check().findings == []
    register_own(tiny.config().DATASETS.PANOPTIC)
    assert [s["iscrowd"] for s in DatasetCatalog.get("tiny_train")[0]["segments_info"]][-1] == 1


def test_broken_exif_data_are_ignored(tiny):
    image = Image.open(tiny.train.image())
    image.save(tiny.train.image(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert tiny.check().findings == []


def test_data_set_that_is_both_train_and_test_is_checked_once(tiny):
    cfg = tiny.config()
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    report = check_datasets(sources_from_config(cfg), workers=1)
    assert report.findings == []
    assert [d.source.role for d in report.datasets] == ["train"]
