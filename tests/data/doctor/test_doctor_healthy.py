"""Sound data sets, also odd ones, have no error and no warning."""

import shutil

import numpy as np
import pytest
from PIL import Image

from eseg_d2.data.doctor import check_datasets, sources_from_config, sources_from_names
from eseg_d2.data.panoptic_png import read_panoptic_png


def redraw(split, index, change):
    ids = read_panoptic_png(str(split.png(index)))
    change(ids)
    rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(split.png(index))


@pytest.mark.parametrize("kind", ["coco", "cityscapes"])
def test_built_in_scenes(scenes, kind):
    names = [f"scenes_{kind}_panoptic_{split}" for split in ("train", "val")]
    report = check_datasets(sources_from_names(names), workers=2)
    assert [f for f in report.findings if f.severity != "note"] == []
    assert [d.records for d in report.datasets] == [12, 4]
    assert [d.checked for d in report.datasets] == [12, 4]


def test_tiny(tiny):
    report = tiny.check()
    assert report.findings == []
    train = report.datasets[0].as_dict()
    road, car, sky = train["classes"]
    assert (train["images"], train["segments"], train["tiny_things"]) == (3, 15, 6)
    assert train["void_share"] == pytest.approx(1 - 20 * 36 / (24 * 40))
    assert (road["segments"], road["images"]) == (3, 3)
    assert (car["segments"], car["images"], car["tiny_things"]) == (9, 3, 6)  # no crowd is tiny
    assert sky["pixel_share"] == pytest.approx(6 * 36 / (24 * 40))


def test_one_image(tiny):
    for split in tiny.train, tiny.val:
        del split.images[1:], split.annotations[1:]
    assert tiny.check().findings == []


def test_stuff_only(tiny):
    for split in tiny.train, tiny.val:
        del split.categories[1]
        for index, annotation in enumerate(split.annotations):
            del annotation["segments_info"][2:]
            redraw(split, index, lambda ids: ids.__setitem__(ids >= 70000, 0))
    assert tiny.check().findings == []


def test_grey_image(tiny):
    Image.open(tiny.train.image()).convert("L").save(tiny.train.image())
    assert tiny.check().findings == []


def test_png_image_with_alpha(tiny):
    image = Image.open(tiny.train.image()).convert("RGBA")
    tiny.train.images[0]["file_name"] = "a.b/one.png"
    (tiny.train.root / "images/a.b").mkdir()
    image.save(tiny.train.root / "images/a.b/one.png")
    assert tiny.check().findings == []


def test_image_that_exif_turns_to_its_pngs_size(tiny):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(tiny.train.image()).transpose(Image.Transpose.ROTATE_90)
    turned.save(tiny.train.image(), exif=exif)
    assert tiny.check().findings == []


def test_padding_is_void(tiny):
    redraw(tiny.train, 0, lambda ids: ids.__setitem__(ids == 0, 0xFFFFFF))
    report = tiny.check()
    assert report.findings == []
    assert report.datasets[0].void_pixels == 3 * (24 * 40 - 20 * 36)


def test_boxes_that_do_not_count_their_last_pixel(tiny):
    for segment in tiny.train.segments():
        segment["bbox"][2] -= 1
        segment["bbox"][3] -= 1
    assert tiny.check().findings == []


def test_largest_segment_id(tiny):
    redraw(tiny.train, 0, lambda ids: ids.__setitem__(ids == 300, 0xFFFFFF))
    tiny.train.segments()[1]["id"] = 0xFFFFFF
    assert tiny.check().findings == []


def test_one_pixel_segments_and_noise():
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


def test_files_beside_the_data_set_do_not_matter(tiny):
    shutil.copy(tiny.train.image(), tiny.train.root / "images/unused.jpg")
    assert tiny.check().findings == []


def test_the_same_data_set_to_train_and_to_test(tiny):
    cfg = tiny.config()
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    report = check_datasets(sources_from_config(cfg), workers=1)
    assert report.findings == []
    assert [d.source.role for d in report.datasets] == ["train"]
