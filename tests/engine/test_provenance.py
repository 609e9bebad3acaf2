"""The record of what a run was made from: code, environment and data."""

import json
import subprocess

from detectron2.config import get_cfg

from eseg_d2 import add_eseg_config
from eseg_d2.engine.provenance import dataset_fingerprint, record_start

NAME = "scenes_cityscapes_panoptic_val"


def make_cfg(output):
    cfg = get_cfg()
    add_eseg_config(cfg)
    cfg.OUTPUT_DIR = str(output)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (NAME,)
    return cfg


def test_environment_data_and_commit_are_recorded(root, scenes, tmp_path):
    assert record_start(make_cfg(tmp_path), 0) == []
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["environment"].keys() >= {"python", "cpu", "torch", "detectron2", "timm", "numpy"}
    assert run["datasets"][NAME] == dataset_fingerprint(NAME)
    assert run["datasets"][NAME]["images"] == 4
    assert [start["iteration"] for start in run["starts"]] == [0]
    git = ["git", "-C", str(root), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True)
    if commit.returncode == 0:
        assert run["git"]["commit"] == commit.stdout.strip()


def test_changes_since_the_start_of_the_run_are_reported(scenes, tmp_path):
    cfg = make_cfg(tmp_path)
    record_start(cfg, 0)
    path = tmp_path / "run.json"
    run = json.loads(path.read_text())
    run["environment"]["torch"] = "1.0"
    run["datasets"][NAME] = {"fingerprint": "0", "images": 3}
    run["starts"][0]["world_size"] = 8
    run["git"] = {"commit": "0", "dirty": False}
    path.write_text(json.dumps(run))
    changes = "\n".join(record_start(cfg, 40))
    for words in (
        f"Data set {NAME} has changed since the run began (3 images then, 4 now)",
        "torch 1.0 -> ",
        "Processes: 8 then, 1 now",
        "The code has changed",
    ):
        assert words in changes, changes
    assert [s["iteration"] for s in json.loads(path.read_text())["starts"]] == [0, 40]
    assert record_start(cfg, 60) == []


def test_fingerprint_changes_with_the_files(tmp_path, monkeypatch):
    entry = {"panoptic_json": f"{tmp_path}/own.json", "image_root": f"{tmp_path}/images"}
    monkeypatch.setattr("eseg_d2.engine.provenance.MetadataCatalog", {"own": entry})
    (tmp_path / "images").mkdir()
    seen = [dataset_fingerprint("own")]
    for name in "own.json", "images/a.png":
        for content in b"a", b"ab":  # a new file, and one of another size
            (tmp_path / name).write_bytes(content)
            seen.append(dataset_fingerprint("own"))
            assert seen[-1] not in seen[:-1]
    assert seen[-1]["images"] == 1 and dataset_fingerprint("own") == seen[-1]
