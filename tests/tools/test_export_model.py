"""tools/export_model.py, run as a command: every format, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from commands import python
from detectron2.modeling import build_model
from PIL import Image

from eseg_d2.engine import load_config
from eseg_d2.export.formats import FORMATS, load_exported
from eseg_d2.export.merge import merge_panoptic
from eseg_d2.export.verify import require_agreement

pytestmark = pytest.mark.filterwarnings("ignore")


def save_random_weights(root, name, folder):
    torch.manual_seed(0)
    model = build_model(load_config(str(root / "configs" / "scenes" / f"{name}.yaml"), []))
    torch.nn.init.normal_(model.sem_seg_head.predictor.weight)
    if hasattr(model, "roi_heads"):  # high scores, but no ties at 1, whose order is not defined
        torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.1)
    path = folder / f"{name}.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


def export(root, name, *options):
    words = ["tools/export_model.py", "--config-file", f"configs/scenes/{name}.yaml", *options]
    return python(*words, cwd=root)


@pytest.mark.parametrize(
    "name, kind, dynamic",
    [
        ("eseg_lite_s", "onnx", True),
        ("eseg_lite_s", "torchscript", False),
        ("eseg_lite_s", "torch_export", False),
        ("rsp_semantic_R50", "onnx", True),
    ],
)
def test_exported_model_agrees_with_pytorch(root, tmp_path, name, kind, dynamic):
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (70, 90, 3), np.uint8)).save(photo)
    options = ["--weights", save_random_weights(root, name, tmp_path), "--format", kind, "--logits"]
    options += ["--output", tmp_path / "out", "--size", "64x96", "--image", photo]
    done = export(root, name, *options, *(["--dynamic"] if dynamic else []))
    assert done.returncode == 0, done.stderr[-3000:]
    info = json.loads((tmp_path / "out" / "model.json").read_text())
    assert info["agreement"]["labels"] >= 0.9999 and info["agreement"]["logits"] <= 1e-3
    assert info["input"]["shape"] == ([1, 3, "H", "W"] if dynamic else [1, 3, 64, 96])
    run = load_exported(tmp_path / "out" / FORMATS[kind])
    size = (75, 131) if dynamic else (64, 96)
    labels, logits = run(np.full((1, 3, *size), 100, np.float32))
    assert labels.shape == (1, *size) and logits.shape == (1, 19, *size)
    assert labels.dtype == np.int64


def test_panoptic_model_is_exported_with_its_merge_settings(root, tmp_path):
    name, out = "rsp_panoptic_R18_coco", tmp_path / "out"
    weights = save_random_weights(root, name, tmp_path)
    options = ["--weights", weights, "--format", "onnx", "--output", out]
    done = export(root, name, *options, "--size", "64x96")
    assert done.returncode == 0, done.stderr[-3000:]
    info = json.loads((out / "model.json").read_text())
    assert info["agreement"]["labels"] >= 0.9999 and info["agreement"]["instances"] > 0
    raw = load_exported(out / FORMATS["onnx"])(np.full((1, 3, 64, 96), 100, np.float32))
    raw = dict(zip(info["outputs"], raw, strict=True))
    panoptic, segments = merge_panoptic(raw, info["merge"])
    assert panoptic.shape == (64, 96) and segments
    assert all(s["category_id"] < len(info["merge"]["names"]) == 13 for s in segments)


def test_unsupported_exports_are_refused(root, tmp_path):
    common = ["--format", "torch_export", "--output", tmp_path / "out"]
    weights = save_random_weights(root, "eseg_lite_s", tmp_path)
    dynamic = export(root, "eseg_lite_s", *common, "--weights", weights, "--dynamic")
    assert dynamic.returncode == 1 and "Use --format onnx" in dynamic.stderr
    missing = export(root, "eseg_lite_s", *common, "--weights", tmp_path / "none.pth")
    assert missing.returncode == 1 and "cannot get MODEL.WEIGHTS" in missing.stderr
    panoptic = save_random_weights(root, "rsp_panoptic_R18_coco", tmp_path)
    program = export(root, "rsp_panoptic_R18_coco", *common, "--weights", panoptic)
    assert program.returncode == 1 and "cannot follow a panoptic model" in program.stderr
    assert not (tmp_path / "out").exists()


def test_int8_model_is_written_and_described(root, tmp_path):
    photo = tmp_path / "photos" / "photo.png"
    photo.parent.mkdir()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (70, 90, 3), np.uint8)).save(photo)
    common = ["--format", "onnx", "--output", tmp_path / "out", "--size", "64x96"]
    common += ["--weights", save_random_weights(root, "eseg_lite_s", tmp_path)]
    int8 = ["--int8", "--calibration", photo.parent]
    done = export(root, "eseg_lite_s", *common, *int8, "DATASETS.TEST", "()")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "model_int8.onnx: calibrated on 1 images" in done.stdout
    assert "mIoU not measured: DATASETS.TEST is not there" in done.stdout
    assert "calibrating: 100%" in done.stderr
    assert load_exported(tmp_path / "out" / "model_int8.onnx")
    incomplete = export(root, "eseg_lite_s", *common, "--int8")
    assert incomplete.returncode == 2 and "--calibration with a folder" in incomplete.stderr
    alone = export(root, "eseg_lite_s", *common, "--keep", "/predictor")
    assert alone.returncode == 2 and "belong to --int8" in alone.stderr


def test_disagreement_is_an_error():
    require_agreement({"labels": 1.0, "logits": 1e-5}, "model.onnx")
    with pytest.raises(ValueError, match="model.onnx does not agree"):
        require_agreement({"labels": 0.99}, "model.onnx")
    with pytest.raises(ValueError, match="logits differ by 1.0e-01"):
        require_agreement({"labels": 1.0, "logits": 0.1}, "model.onnx")
