import json

import numpy as np
import pytest
import torch
from commands import python

from eseg_d2.apps.benchmarks.model_benchmark import STEPS, OnnxPredictor, build_predictor


def benchmark(root, *options):
    return python("tools/benchmark.py", "model", "--repeats", "1", *options, cwd=root)


def test_models_are_timed_beside_each_other(root, tmp_path):
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
    x, _ = predictor.preprocess(image)
    torch.testing.assert_close(onnx.network(x), predictor.network(x), rtol=1e-3, atol=1e-4)


def test_what_is_no_semantic_model_is_told(root):
    done = benchmark(root, "--config-file", "configs/scenes/rsp_panoptic_R18_coco.yaml")
    assert done.returncode == 1 and "is PanopticRCNN" in done.stderr.splitlines()[-1]
