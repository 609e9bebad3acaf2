"""Benchmark of models: inference by step, ONNX Runtime, and training iterations."""

import json

import numpy as np
import pytest
import torch
from commands import python

from eseg_d2.apps.benchmarks.model_benchmark import STEPS, OnnxPredictor, build_predictor


def benchmark(root, *options):
    options = "--repeats", "1", "--threads", "1", *options
    return python("tools/benchmark.py", "model", *options, cwd=root)


def test_models_are_timed_side_by_side(root, tmp_path):
    out = tmp_path / "models.json"
    done = benchmark(
        root,
        *("--config-file", "configs/scenes/eseg_lite_s.yaml", "--size", "64x128", "--json", out),
        *("--vs", "torchvision:lraspp_mobilenet_v3_large"),
        *("--vs", "configs/scenes/deeplab_v3_R50.yaml", "--onnxruntime", "--profile"),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    names = ["eseg_lite_s", "torchvision:lraspp_mobilenet_v3_large", "deeplab_v3_R50"]
    pairs = [(f"{name}, onnxruntime", name) for name in names]
    assert [row["name"] for row in rows] == [name for pair in pairs for name in pair]
    for row in rows:
        assert tuple(row["seconds"]) == STEPS and row["peak_bytes"] > 0
        assert row["images_per_second"] == pytest.approx(1 / row["seconds"]["total"]["median"])
        assert f"| {row['name']} |" in done.stdout
    assert rows[-1]["speedup"] == 1
    assert "eseg_lite_s, the network's time by operation:" in done.stdout
    assert "| aten::mkldnn_convolution |" in done.stdout


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", ["scenes", "torchvision:lraspp_mobilenet_v3_large"])
def test_onnxruntime_gives_the_same_labels(root, source):
    if source == "scenes":
        source = str(root / "configs/scenes/eseg_lite_s.yaml")
    torch.manual_seed(0)
    predictor = build_predictor(source, (64, 96), "cpu")
    onnx = OnnxPredictor(predictor, (64, 96))
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    batch = predictor.preprocess([image])
    (logits, *_), (expected, *_) = onnx.network(batch), predictor.network(batch)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
    results = [p.postprocess(*p.network(batch), batch, [image]) for p in (onnx, predictor)]
    labels, expected = (x[0].semantic if isinstance(x, list) else x for x in results)
    assert labels.shape == (64, 96) and (labels == expected).mean() > 0.99


STOCK = "detectron2:COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"


@pytest.mark.parametrize("source", ["configs/scenes/rsp_panoptic_R18_cityscapes.yaml", STOCK])
def test_panoptic_models_return_the_requested_number_of_objects(root, source):
    source = source if source == STOCK else str(root / source)
    predictor = build_predictor(source, (64, 96), "cpu", detections=7)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    batch = predictor.preprocess([image])
    result = predictor.postprocess(*predictor.network(batch), batch, [image])
    if source == STOCK:
        instances, size = result["instances"], result["panoptic_seg"][0].shape
    else:
        instances, size = result[0].instances, result[0].panoptic.shape
    assert len(instances.scores) == 7 and size == (64, 96)


def test_onnxruntime_with_a_panoptic_model_is_refused(root):
    panoptic = "configs/scenes/rsp_panoptic_R18_coco.yaml"
    done = benchmark(root, "--config-file", panoptic, "--size", "64x96", "--onnxruntime")
    assert done.returncode == 1 and "runs semantic models" in done.stderr.splitlines()[-1]


def test_training_iterations_are_timed(root, tmp_path):
    out = tmp_path / "training.json"
    done = python(
        *("tools/benchmark.py", "training", "--repeats", "1", "--threads", "1", "--json", out),
        *("--config-file", "configs/scenes/rsp_panoptic_R18_cityscapes.yaml", "--objects", "3"),
        *("--vs", "configs/scenes/rsp_panoptic_R18_coco.yaml", "--size", "64x96"),
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    first, last = json.loads(out.read_text())
    assert first["ratio"] == pytest.approx(first["seconds"]["median"] / last["seconds"]["median"])
    assert last["ratio"] == 1 and first["peak_bytes"] > 0
    assert f"| {first['name']} |" in done.stdout
