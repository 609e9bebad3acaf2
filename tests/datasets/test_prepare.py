"""The commands that prepare Cityscapes and check COCO."""

import runpy
import shutil

import pytest

from eseg_d2.apps.convert import published as prepare


@pytest.fixture(scope="module")
def prepare_cityscapes(root):
    return runpy.run_path(str(root / "datasets/prepare_cityscapes.py"))["main"]


@pytest.fixture(scope="module")
def prepare_coco(root):
    return runpy.run_path(str(root / "datasets/prepare_coco.py"))["main"]


@pytest.fixture
def scenes_in(scenes, tmp_path, monkeypatch):
    """Set DETECTRON2_DATASETS to a folder with street scenes in place of the real data."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for kind in "cityscapes", "coco":
        shutil.copytree(scenes / "street_scenes" / kind, tmp_path / kind)
    return tmp_path


def test_cityscapes_is_prepared_in_detectron2_datasets(prepare_cityscapes, scenes_in, capsys):
    json_path = scenes_in / "cityscapes" / "gtFine" / "cityscapes_panoptic_val.json"
    json_path.unlink()
    assert prepare_cityscapes(["--workers", "1"]) == 0
    captured = capsys.readouterr()
    assert f"{scenes_in / 'cityscapes'}: train is ready, 12 images\n" in captured.out
    assert f"{scenes_in / 'cityscapes'}: val is ready, 4 images\n" in captured.out
    assert "val panoptic" in captured.err and "train panoptic" not in captured.err
    assert json_path.is_file()


def test_single_split_of_cityscapes_is_prepared_alone(prepare_cityscapes, scenes_in, capsys):
    shutil.rmtree(scenes_in / "cityscapes" / "gtFine" / "train")
    root = ["--root", str(scenes_in / "cityscapes")]
    assert prepare_cityscapes([*root, "--splits", "val"]) == 0
    assert prepare_cityscapes(root) == 1
    error = capsys.readouterr().err
    assert "error: there is no folder" in error and "gtFine_trainvaltest.zip" in error
    assert error.count("\n") == 1
    with pytest.raises(SystemExit):
        prepare_cityscapes([*root, "--splits", "test"])


def test_interrupted_run_says_how_to_continue(prepare_cityscapes, monkeypatch, capsys, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "prepare_cityscapes", interrupt)
    assert prepare_cityscapes(["--root", str(tmp_path)]) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_coco_is_checked_in_detectron2_datasets(prepare_coco, scenes_in, capsys):
    assert prepare_coco([]) == 0
    out = capsys.readouterr().out
    assert f"{scenes_in / 'coco'}: train has 12 images (COCO has 118287)\n" in out
    assert f"{scenes_in / 'coco'}: val has 4 images (COCO has 5000)\n" in out
    assert "optional" in out and "instances_val2017.json" in out
    (scenes_in / "coco" / "annotations" / "instances_val2017.json").touch()
    assert prepare_coco([]) == 0
    assert "optional" not in capsys.readouterr().out


def test_missing_coco_is_a_failure(prepare_coco, scenes_in, capsys):
    shutil.rmtree(scenes_in / "coco" / "train2017")
    root = ["--root", str(scenes_in / "coco")]
    assert prepare_coco(root) == 1
    assert "  there is no folder" in capsys.readouterr().out
    assert prepare_coco([*root, "--splits", "val"]) == 0
    assert prepare_coco(["--root", str(scenes_in / "nowhere")]) == 1
    out = capsys.readouterr().out
    assert out.count("panoptic_annotations_trainval2017.zip") == 2
