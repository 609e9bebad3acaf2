"""tools/check_dataset.py, the command of the dataset doctor."""

import json
import shutil
from pathlib import Path

import pytest
from commands import python

ROOT = Path(__file__).parents[2]


def run(*arguments, datasets):
    environment = {"DETECTRON2_DATASETS": datasets, "PYTHONIOENCODING": "ascii"}
    return python("tools/check_dataset.py", *arguments, cwd=ROOT, **environment)


def test_healthy_scenes_pass_in_both_formats(scenes, tmp_path):
    names = [f"scenes_{f}_panoptic_{s}" for f in ("coco", "cityscapes") for s in ("train", "val")]
    arguments = [word for name in names for word in ("--dataset", name)]
    found = tmp_path / "found.json"
    done = run(*arguments, "--workers", 2, "--json", found, datasets=scenes)
    assert done.returncode == 0, done.stderr
    assert "checking: 100%" in done.stderr
    assert "0 errors, 0 warnings" in done.stdout
    content = json.loads(found.read_text())
    assert {f["code"] for f in content["findings"]} <= {"class-absent"}
    assert [d["images_counted"] for d in content["datasets"]] == [12, 4, 12, 4]


@pytest.fixture
def broken(scenes, tmp_path):
    """Write a config of scenes with a non-ASCII class name and a missing validation image."""
    shutil.copytree(scenes / "street_scenes/coco", tmp_path / "scenes")
    (tmp_path / "scenes/val2017/000001000001.jpg").unlink()
    for file in (tmp_path / "scenes/annotations").iterdir():
        file.write_text(file.read_text().replace('"road"', r'"stra\u00dfe \ud800"'))
    entries = [
        {
            "name": f"own_{split}",
            "images": str(tmp_path / f"scenes/{split}2017"),
            "panoptic_png": str(tmp_path / f"scenes/panoptic_{split}2017"),
            "panoptic_json": str(tmp_path / f"scenes/annotations/panoptic_{split}2017.json"),
        }
        for split in ("train", "val")
    ]
    config = tmp_path / "own.yaml"
    content = {"PANOPTIC": entries, "TRAIN": ["own_train"], "TEST": ["own_val"]}
    config.write_text(json.dumps({"VERSION": 2, "DATASETS": content}))  # JSON is valid YAML
    return config


def test_missing_image_of_a_users_data_set_is_reported_everywhere(broken, tmp_path):
    files = "--json", tmp_path / "a.json", "--html", tmp_path / "a.html"
    done = run("--config-file", broken, "--workers", 1, *files, datasets=tmp_path)
    assert done.returncode == 1, done.stderr
    (error,) = [f for f in json.loads(files[1].read_text())["findings"] if f["severity"] == "error"]
    assert (error["code"], error["id"]) == ("image-missing", 1000001)
    assert error["file"] == str(tmp_path / "scenes/val2017/000001000001.jpg")
    assert error["message"] in done.stdout
    assert r"stra\xdfe \ud800" in done.stdout
    page = files[3].read_text(encoding="utf-8")
    assert "image-missing" in page and "straße &#55296;" in page


def test_broken_json_is_a_finding_and_overrides_are_applied(broken, tmp_path):
    (tmp_path / "scenes/annotations/panoptic_train2017.json").write_text("{")
    overrides = "DATASETS.TEST", "()"
    done = run("--config-file", broken, "--workers", 1, *overrides, datasets=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "error: json-invalid (1)" in done.stdout
    assert done.stdout.endswith("1 error, 0 warnings, 0 notes\n")
