"""The command lines that prepare Cityscapes and check COCO."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from eseg_d2.apps.convert import published as prepare

FOLDER = Path(__file__).parents[2] / "datasets"


def _main(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def prepare_cityscapes():
    return _main("prepare_cityscapes")


@pytest.fixture(scope="module")
def prepare_coco():
    return _main("prepare_coco")


@pytest.fixture
def scenes_in(scenes, tmp_path, monkeypatch):
    """A DETECTRON2_DATASETS with street scenes in the place of the real data."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for kind in "cityscapes", "coco":
        shutil.copytree(scenes / "street_scenes" / kind, tmp_path / kind)
    return tmp_path


def test_cityscapes_is_prepared_where_it_is_looked_for(prepare_cityscapes, scenes_in, capsys):
    json_path = scenes_in / "cityscapes" / "gtFine" / "cityscapes_panoptic_val.json"
    json_path.unlink()
    assert prepare_cityscapes(["--workers", "1"]) == 0
    captured = capsys.readouterr()
    assert f"{scenes_in / 'cityscapes'}: train is ready, 12 images\n" in captured.out
    assert f"{scenes_in / 'cityscapes'}: val is ready, 4 images\n" in captured.out
    assert "val panoptic" in captured.err and "train panoptic" not in captured.err
    assert json_path.is_file()


def test_cityscapes_of_one_split(prepare_cityscapes, scenes_in, capsys):
    shutil.rmtree(scenes_in / "cityscapes" / "gtFine" / "train")
    root = ["--root", str(scenes_in / "cityscapes")]
    assert prepare_cityscapes([*root, "--splits", "val"]) == 0
    assert prepare_cityscapes(root) == 1
    error = capsys.readouterr().err
    assert "error: there is no folder" in error and "gtFine_trainvaltest.zip" in error
    assert error.count("\n") == 1
    with pytest.raises(SystemExit):
        prepare_cityscapes([*root, "--splits", "test"])


def test_an_interrupted_run_says_how_to_go_on(prepare_cityscapes, monkeypatch, capsys, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "prepare_cityscapes", interrupt)
    assert prepare_cityscapes(["--root", str(tmp_path)]) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_coco_is_checked_where_it_is_looked_for(prepare_coco, scenes_in, capsys):
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
