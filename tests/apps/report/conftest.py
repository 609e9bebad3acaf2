"""Folders of runs as train_net.py leaves them, made without training."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from eseg_d2.engine import load_config

SMALL = ["INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu"]
CLASSES = ("road", "car", "sky")


@pytest.fixture
def make_run(root, scenes):
    """Return a function that writes a run of a config of configs/scenes, with random weights."""

    def make(folder: Path, config: str = "rsp_panoptic_R18_cityscapes", *overrides) -> Path:
        cfg = load_config(str(root / f"configs/scenes/{config}.yaml"), [*SMALL, *overrides])
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(cfg.dump())
        torch.manual_seed(0)
        DetectionCheckpointer(build_model(cfg), str(folder)).save("model_final")
        write_measurements(folder)
        return folder

    return make


def write_measurements(folder: Path) -> None:
    """Write metrics.json, results.json and the files of inference/ of a short training run."""
    rows = [
        {"iteration": i, "total_loss": 3 / (i + 1), "loss_mask": 1 / (i + 1), "lr": 0.1}
        | {"time": 0.5, "data_time": 0.1}
        for i in (0, 1, 2)
    ]
    rows.insert(2, {"iteration": 1, "panoptic_seg/PQ": 20.0, "sem_seg/mIoU": 20.0})
    rows.append({"iteration": 3, "panoptic_seg/PQ": 40.0, "sem_seg/mIoU": float("nan")})
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    semantic = {"mIoU": None, "IoU-road": 80.0, "IoU-car": 30.0, "IoU-sky": None}
    results = {"panoptic_seg": {"PQ": 40.0, "SQ": 60.0}, "sem_seg": semantic}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "inference").mkdir()
    figures = {name: {"PQ": 10.0 * i, "SQ": 1, "TP": 1} for i, name in enumerate(CLASSES)}
    (folder / "inference/panoptic_quality.json").write_text(json.dumps(figures))
    confusion = {"classes": CLASSES, "pixels": [[90, 10, 0], [25, 75, 0], [0, 0, 0]]}
    (folder / "inference/sem_seg_confusion.json").write_text(json.dumps(confusion))
