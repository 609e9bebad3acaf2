"""Valid data sets, including unusual ones, have no errors and no warnings."""

import json
import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from eseg_d2.data.datasets.panoptic_format import register_own
from eseg_d2.data.panoptic_png import read_panoptic_png


def test_statistics_of_the_tiny_data_set(tiny):
    report = tiny.check()
    assert report.findings == []
    train = report.datasets[0].as_dict()
    road, car, sky = train["classes"]
    assert (train["images"], train["segments"], train["tiny_things"]) == (3, 15, 6)
    assert train["void_share"] == pytest.approx(1 - 20 * 36 / (24 * 40))
    assert (road["segments"], road["images"]) == (3, 3)
    assert (car["segments"], car["images"]) == (9, 3)
    assert car["tiny_things"] == 6  # crowds never count as tiny
    assert sky["pixel_share"] == pytest.approx(6 * 36 / (24 * 40))


def keep_one_image(split):
    for index in range(1, len(split.images)):
        split.image(index).unlink()
    del split.images[1:], split.annotations[1:]


def keep_stuff(split):
    del split.categories[1]
    for index in range(len(split.annotations)):
        del split.segments(index)[2:]
        split.redraw(lambda ids: ids.__setitem__(ids >= 70000, 0), index)


def store_as_png_with_alpha(split):
    image = Image.open(split.image()).convert("RGBA")
    split.image().unlink()
    split.put("images/0/file_name", "a.b/one.png")
    (split.root / "images/a.b").mkdir()
    image.save(split.root / "images/a.b/one.png")


def turn(split):
    exif = Image.Exif()
    exif[0x0112] = 6
    split.edit_image(lambda image: image.transpose(Image.Transpose.ROTATE_90), exif=exif)


def leave_out_last_pixels(split):
    for segment in split.segments():
        x, y, w, h = segment["bbox"]
        segment["bbox"] = [x, y, w - 1, h - 1]


def use_largest_id(split):
    split.redraw(lambda ids: ids.__setitem__(ids == 300, 0xFFFFFF))
    split.segments()[1]["id"] = 0xFFFFFF


def break_exif(split):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40
    split.edit_image(lambda image: image, exif=exif)


@pytest.mark.parametrize(
    "change",
    [
        *(keep_one_image, keep_stuff, store_as_png_with_alpha, turn, leave_out_last_pixels),
        *(use_largest_id, break_exif),
        lambda split: split.edit_image(lambda image: image.convert("L")),
    ],
)
def test_unusual_data_set_is_valid(tiny, change):
    for split in tiny.train, tiny.val:
        change(split)
    assert tiny.check().findings == []


def test_train_and_val_may_share_a_folder_of_images(tiny):
    for index in range(2):
        shutil.copy(tiny.val.image(index), tiny.train.root / "images")
    cfg = tiny.config()
    cfg.DATASETS.PANOPTIC[1]["images"] = cfg.DATASETS.PANOPTIC[0]["images"]
    assert tiny.check(cfg).findings == []


def test_pngs_may_lie_inside_the_folder_of_images(tiny):
    (tiny.train.root / "pngs").rename(tiny.train.root / "images" / "pngs")
    cfg = tiny.config()
    cfg.DATASETS.PANOPTIC[0]["panoptic_png"] = str(tiny.train.root / "images" / "pngs")
    assert tiny.check(cfg).findings == []


def test_alpha_channel_of_a_png_is_ignored(tiny):
    """Some tools write an alpha channel, which leaves the segment ids unchanged."""
    alpha = Image.fromarray(np.arange(960, dtype=np.uint8).reshape(24, 40))
    for index in range(3):
        before = read_panoptic_png(str(tiny.train.png(index)))
        tiny.train.edit_png(lambda png: Image.merge("RGBA", [*png.split(), alpha]), index)
        assert (read_panoptic_png(str(tiny.train.png(index))) == before).all()
    report = tiny.check()
    assert report.findings == []
    assert report.datasets[0].all_pixels == 3 * 960


def test_whole_floats_as_written_by_pandas_and_matlab_are_valid(tiny):
    tiny.train.content = json.loads(json.dumps(tiny.train.content), parse_int=float)
    assert tiny.check().findings == []
    register_own(tiny.config().DATASETS.PANOPTIC)
    record = DatasetCatalog.get("tiny_train")[0]
    assert record["image_id"] == 11 and type(record["image_id"]) is int
    assert record["segments_info"][0]["category_id"] == 0
    assert [s["iscrowd"] for s in record["segments_info"]] == [0, 0, 0, 0, 1]


def test_flags_may_be_true_and_false(tiny):
    for segment in tiny.train.segments():
        segment["iscrowd"] = bool(segment["iscrowd"])
    for category in [*tiny.train.categories, *tiny.val.categories]:
        category["isthing"] = bool(category["isthing"])
    assert tiny.check().findings == []
    register_own(tiny.config().DATASETS.PANOPTIC)
    assert [s["iscrowd"] for s in DatasetCatalog.get("tiny_train")[0]["segments_info"]][-1] == 1


def test_data_set_that_is_both_train_and_test_is_checked_once(tiny):
    cfg = tiny.config()
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    report = tiny.check(cfg)
    assert report.findings == []
    assert [d.source.role for d in report.datasets] == ["train"]
