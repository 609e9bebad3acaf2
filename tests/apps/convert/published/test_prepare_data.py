"""Derived files of Cityscapes, compared with cityscapesscripts, and checks of COCO's files."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from panoptic_files import contents
from PIL import Image

from eseg_d2.apps.convert.published import check_coco, cityscapes, prepare_cityscapes


@pytest.fixture
def downloaded(scenes, tmp_path):
    """Write Cityscapes as it is downloaded, without derived files."""
    root = tmp_path / "cityscapes"
    shutil.copytree(scenes / "street_scenes" / "cityscapes", root)
    for path in root.rglob("*_labelTrainIds.png"):
        path.unlink()
    for split in "train", "val":
        shutil.rmtree(root / "gtFine" / f"cityscapes_panoptic_{split}")
        (root / "gtFine" / f"cityscapes_panoptic_{split}.json").unlink()
    return root


def derived_of(root):
    """Return all files but polygons; JSONs as parsed, since cityscapesscripts indents them."""
    return {
        name: json.loads(data) if name.endswith(".json") else data
        for name, data in contents(root / "gtFine").items()
        if not name.endswith("_polygons.json")
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_derived_files_equal_those_of_cityscapesscripts(downloaded, tmp_path, workers):
    from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic
    from cityscapesscripts.preparation.json2labelImg import json2labelImg

    shutil.copytree(downloaded, tmp_path / "theirs")
    for path in (tmp_path / "theirs" / "gtFine").rglob("*_polygons.json"):
        target = str(path).replace("_polygons.json", "_labelTrainIds.png")
        json2labelImg(str(path), target, "trainIds")
    with contextlib.redirect_stdout(io.StringIO()):
        convert2panoptic(str(tmp_path / "theirs" / "gtFine"), setNames=["train", "val"])
    for path in downloaded.rglob("*_polygons.json"):  # ours needs none
        path.unlink()
    assert prepare_cityscapes(downloaded, workers=workers) == {"train": 12, "val": 4}
    assert derived_of(downloaded) == derived_of(tmp_path / "theirs")


def test_existing_files_are_left_alone(downloaded):
    prepare_cityscapes(downloaded, ["val"], workers=1)
    assert not (downloaded / "gtFine" / "cityscapes_panoptic_train.json").exists()
    before = {p: p.stat().st_mtime_ns for p in downloaded.rglob("*")}
    prepare_cityscapes(downloaded, ["val"], workers=1)
    assert before == {p: p.stat().st_mtime_ns for p in downloaded.rglob("*")}


def test_interrupted_run_is_continued(downloaded, monkeypatch, tmp_path):
    shutil.copytree(downloaded, tmp_path / "whole")
    prepare_cityscapes(tmp_path / "whole", ["train"], workers=1)
    done = []
    convert_one = cityscapes._convert_one

    def interrupted(path, **settings):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(path)
        return convert_one(path, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(cityscapes, "_convert_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_cityscapes(downloaded, ["train"], workers=1)
    panoptic = downloaded / "gtFine" / "cityscapes_panoptic_train"
    assert not panoptic.with_suffix(".json").exists()
    first = {p.name: p.stat().st_mtime_ns for p in panoptic.iterdir()}
    assert len(first) == 5
    prepare_cityscapes(downloaded, ["train"], workers=1)
    assert first.items() <= {p.name: p.stat().st_mtime_ns for p in panoptic.iterdir()}.items()
    assert contents(downloaded) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("file", "left"),
    [
        *(
            ("gtFine/cityscapes_panoptic_val.json", text)
            for text in ("{", "[]", '{"annotations": []}')
        ),
        ("gtFine/cityscapes_panoptic_val/*.png", None),
        ("gtFine/val/*/*_labelTrainIds.png", None),
    ],
)
def test_incomplete_or_missing_file_is_made_again(downloaded, file, left):
    prepare_cityscapes(downloaded, ["val"], workers=1)
    before = contents(downloaded)
    path = next(downloaded.glob(file))
    path.unlink() if left is None else path.write_text(left)
    prepare_cityscapes(downloaded, ["val"], workers=1)
    assert contents(downloaded) == before


def test_missing_download_is_named(downloaded):
    def fails(message):
        with pytest.raises(FileNotFoundError, match=message):
            prepare_cityscapes(downloaded, ["val"], workers=1)

    image = next((downloaded / "leftImg8bit" / "val").rglob("*.png"))
    image.unlink()
    fails(f"leftImg8bit_trainvaltest.zip(.|\n)*{image.name}")
    shutil.rmtree(downloaded / "gtFine" / "val")
    fails("gtFine.val. Download gtFine_trainvaltest.zip from https://")
    (downloaded / "gtFine" / "val").mkdir()
    fails("gtFine.val holds no")
    shutil.rmtree(downloaded / "leftImg8bit")
    fails("leftImg8bit.val. Download leftImg8bit_trainvaltest.zip")


def test_damaged_download_is_named(downloaded):
    instances = next((downloaded / "gtFine" / "val").rglob("*_instanceIds.png"))
    content = instances.read_bytes()
    Image.fromarray(np.full((64, 128), 77, np.uint16)).save(instances)
    unknown = instances.read_bytes()
    for spoiled in content[:200], unknown:
        instances.write_bytes(spoiled)
        with pytest.raises(ValueError, match=f"{instances.name}(.|\n)*as published"):
            prepare_cityscapes(downloaded, ["val"], workers=2)
        train_ids = instances.name.replace("instanceIds", "labelTrainIds")
        assert not (instances.parent / train_ids).exists()


@pytest.fixture
def coco(scenes, tmp_path):
    shutil.copytree(scenes / "street_scenes" / "coco", tmp_path / "coco")
    return tmp_path / "coco"


def test_missing_and_misplaced_files_of_coco_are_named(coco):
    def problem(message):
        (text,) = check_coco(coco, "val").problems
        for part in message:
            assert part in text

    panoptic, images = coco / "panoptic_val2017", coco / "val2017"
    (panoptic / "1.png").touch()
    problem(["panoptic_val2017 holds 1 files its json lacks", "1.png"])
    (panoptic / "1.png").unlink()
    next(panoptic.iterdir()).unlink()
    problem(["panoptic_val2017 lacks 1 of 4 files", "annotations/panoptic_val2017.zip from http"])
    panoptic.rename(coco / "annotations" / "panoptic_val2017")
    problem(["wrong place", f"move it to {panoptic}"])
    shutil.rmtree(coco / "annotations" / "panoptic_val2017")
    problem(["no folder", str(panoptic)])
    next(images.iterdir()).unlink()
    assert "zips/val2017.zip" in check_coco(coco, "val").problems[0]
    shutil.rmtree(images)
    assert len(check_coco(coco, "val").problems) == 2
    path = coco / "annotations" / "panoptic_val2017.json"
    for content in "{", "{}", "[]", '{"images": [1], "annotations": []}':
        path.write_text(content)
        problem(["panoptic_val2017.json cannot be read", "again"])
    path.unlink()
    problem(["there is no", "panoptic_annotations_trainval2017.zip"])


def test_json_that_does_not_annotate_every_image_is_named(coco):
    path = coco / "annotations" / "panoptic_val2017.json"
    content = json.loads(path.read_text())
    png = content["annotations"].pop()["file_name"]
    path.write_text(json.dumps(content))
    problems = check_coco(coco, "val").problems
    assert any("lists 4 images, but annotates 3" in text for text in problems)
    assert any("holds 1 files its json lacks" in text and png in text for text in problems)
