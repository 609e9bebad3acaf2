"""Comparison of train and val, and of data sets with their registered categories."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from eseg_d2.apps.doctor import check_datasets, sources_from_config, sources_from_names
from eseg_d2.data.datasets.panoptic_format import metadata_from_categories, register_panoptic


def only(report):
    (finding,) = report.findings
    return finding


def remove_class(split, category_id):
    """Remove the segments of a class, which become void."""
    for index, annotation in enumerate(split.annotations):
        segments = annotation["segments_info"]
        gone = [s["id"] for s in segments if s["category_id"] == category_id]
        annotation["segments_info"] = [s for s in segments if s["id"] not in gone]
        split.redraw(lambda ids, gone=gone: ids.__setitem__(np.isin(ids, gone), 0), index)


def test_class_only_in_val_is_a_warning(tiny):
    remove_class(tiny.train, 3)
    finding = only(tiny.check())
    assert (finding.code, finding.severity) == ("class-only-in-val", "warning")
    assert (finding.dataset, finding.id) == ("tiny_val", 3)
    assert "sky" in finding.message and "2 segments" in finding.message


def test_class_in_neither_split_is_a_note(tiny):
    remove_class(tiny.train, 3)
    remove_class(tiny.val, 3)
    finding = only(tiny.check())
    assert (finding.code, finding.severity) == ("class-absent", "note")
    assert "3 (sky)" in finding.message


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c[2].update(name="heaven"), "tiny_val alone has 3 heaven (stuff)"),
        (lambda c: c.append({"id": 5, "name": "cat", "isthing": 1}), "alone has 5 cat (thing)"),
        (lambda c: c.reverse(), "their order"),
    ],
)
def test_differing_categories_are_an_error(tiny, change, text):
    change(tiny.val.categories)
    finding = next(f for f in tiny.check().findings if f.severity != "note")
    assert (finding.code, finding.severity) == ("categories-differ", "error")
    assert finding.file == str(tiny.val.json)
    assert text in finding.message


def test_broken_val_is_not_compared(tiny):
    tiny.val.content = None
    assert only(tiny.check()).code == "json-missing"


def test_image_in_both_train_and_val_is_found(tiny):
    tiny.val.image().write_bytes(tiny.train.image(1).read_bytes())
    finding = only(tiny.check())
    assert (finding.code, finding.id) == ("image-in-train-and-val", 21)
    assert finding.file == str(tiny.val.image())
    assert str(tiny.train.image(1)) in finding.message


def test_equal_file_names_of_different_images_are_valid(tiny):
    tiny.val.images[0]["file_name"] = "11.jpg"
    shutil.move(tiny.val.image(), tiny.val.root / "images/11.jpg")
    assert tiny.check().findings == []


@pytest.fixture
def registered(tiny):
    """Return a function that registers the train split with categories and returns its report."""
    name = "tiny_registered_train"

    def check(categories):
        tiny.train.write()
        register_panoptic(
            name,
            image_root=str(tiny.train.root / "images"),
            panoptic_root=str(tiny.train.root / "pngs"),
            panoptic_json=str(tiny.train.json),
            metadata=metadata_from_categories(categories),
        )
        return check_datasets(sources_from_names([name]), workers=1)

    yield check
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_registered_categories_that_match_are_valid(tiny, registered):
    assert registered(tiny.train.categories).findings == []


@pytest.mark.parametrize("change", [{"id": 4}, {"isthing": 1}])
def test_registered_categories_that_differ_are_found(tiny, registered, change):
    *others, sky = tiny.train.categories
    finding = only(registered([*others, {**sky, **change}]))
    assert (finding.code, finding.id) == ("category-not-registered", 3)
    assert finding.file == str(tiny.train.json)


@pytest.fixture
def cityscapes(scenes, tmp_path):
    """Copy the scenes in Cityscapes' format, for a test to break, and return their source."""
    root = tmp_path / "cityscapes"
    shutil.copytree(scenes / "street_scenes/cityscapes", root)

    def moved(path):
        return str(path).replace(str(scenes / "street_scenes/cityscapes"), str(root))

    (source,) = sources_from_names(["scenes_cityscapes_panoptic_val"])
    places = ("panoptic_json", "panoptic_root", "image_root")
    return replace(
        source,
        **{place: moved(getattr(source, place)) for place in places},
        image_path=lambda image, annotation: moved(source.image_path(image, annotation)),
    )


def problems(source):
    report = check_datasets([source], workers=1)
    return [(f.code, f.id, f.file) for f in report.findings if f.severity != "note"]


@pytest.mark.parametrize(
    ("code", "break_it"),
    [
        ("image-missing", lambda image: image.unlink()),
        ("image-unreadable", lambda image: image.write_bytes(image.read_bytes()[:-40])),
    ],
)
def test_broken_image_of_cityscapes_is_found(cityscapes, code, break_it):
    image = sorted(Path(cityscapes.image_root).rglob("*.png"))[1]
    break_it(image)
    id_ = image.name.removesuffix("_leftImg8bit.png")
    assert problems(cityscapes) == [(code, id_, str(image))]


@pytest.mark.parametrize(
    ("id_", "code"), [(5, "path-unknown"), ("../../town_000000_000019", "path-outside-root")]
)
def test_image_id_that_gives_no_path_of_cityscapes_is_found(cityscapes, id_, code):
    json_file = Path(cityscapes.panoptic_json)
    content = json.loads(json_file.read_text())
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = id_
    json_file.write_text(json.dumps(content))
    assert problems(cityscapes) == [(code, id_, str(json_file))]


def test_role_and_group_follow_from_the_name(scenes):
    names = ["scenes_coco_panoptic_val", "scenes_coco_panoptic_train", "scenes_coco_panoptic_val"]
    names.append("scenes_cityscapes_panoptic_train")
    val, train, other = sources_from_names(names)
    assert [s.role for s in (val, train, other)] == ["val", "train", "train"]
    assert val.group == train.group != other.group


def test_unknown_or_incomplete_data_set_is_refused(tiny):
    with pytest.raises(ValueError, match="similar names are"):
        sources_from_names(["scenes_coco_panoptic_trian"])
    with pytest.raises(ValueError, match="not in the COCO panoptic format"):
        sources_from_names(["coco_2017_train"])
    cfg = tiny.config()
    cfg.DATASETS.PANOPTIC = [{"name": "tiny_train"}]
    with pytest.raises(ValueError, match="expected the keys name, images"):
        sources_from_config(cfg)


def test_data_sets_of_other_formats_in_a_config_are_skipped(tiny):
    cfg = tiny.config()
    cfg.DATASETS.TEST = ("coco_2017_val", "tiny_val")
    assert [s.name for s in sources_from_config(cfg)] == ["tiny_train", "tiny_val"]
    assert [s.name for s in sources_from_config(cfg, eval_only=True)] == ["tiny_val"]
