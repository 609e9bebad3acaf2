"""The command line of the dataset doctor."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments, datasets):
    environment = {**os.environ, "DETECTRON2_DATASETS": str(datasets), "PYTHONIOENCODING": "ascii"}
    return subprocess.run(
        [sys.executable, ROOT / "tools/check_dataset.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_healthy_scenes_in_both_formats(scenes, tmp_path):
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
    """A config of scenes with a class that ASCII cannot name; their val lacks an image."""
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
    config.write_text(json.dumps({"VERSION": 2, "DATASETS": content}))  # json is yaml
    return config


def test_a_users_own_data_set_with_an_error(broken, tmp_path):
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


def test_a_broken_json_is_a_finding_and_overrides_count(broken, tmp_path):
    (tmp_path / "scenes/annotations/panoptic_train2017.json").write_text("{")
    overrides = "DATASETS.TEST", "()"
    done = run("--config-file", broken, "--workers", 1, *overrides, datasets=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "error: json-invalid (1)" in done.stdout
    assert done.stdout.endswith("1 error, 0 warnings, 0 notes\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "scenes_coco_panoptic_tran"], "is not registered"),
        (["--dataset", "coco_2017_val"], "not in the COCO panoptic format"),
        (["--config-file", "no/such.yaml"], "no/such.yaml"),
        (["--config-file", "configs/Base-RSP-Panoptic.yaml", "NO.KEY", "1"], "NO.KEY"),
    ],
)
def test_wrong_usage_of_data_sets(arguments, message, root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["check_dataset.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(root / "tools/check_dataset.py"), run_name="__main__")
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["--dataset", "a", "--config-file", "b"], "not allowed with"),
        (["--dataset", "a", "SOLVER.MAX_ITER", "3"], "overrides are for --config-file"),
        (["--dataset", "a", "--workers", "0"], "expected 1 or more"),
        (["--dataset", "a", "--json", "no/such/folder/a.json"], "there is no folder"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, message, tmp_path):
    done = run(*arguments, datasets=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
