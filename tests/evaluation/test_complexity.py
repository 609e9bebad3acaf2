"""Parameters and multiply-adds of the models, counted by other means."""

import json

import pytest
import torch
from commands import python
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from torch import nn

from eseg_d2.engine import load_config
from eseg_d2.evaluation.complexity import analyze_config, format_table
from eseg_d2.layers.relation import PixelToRegionRelation

SEMANTIC = ("rsp_semantic_R50", "rsp_semantic_light_R50", "semantic_fpn_R50", "deeplab_v3_R50")


def products_by_hooks(model, run):
    """Count the multiply-adds of convolutions, linear layers and relations by definition."""
    total = 0

    def add(module, inputs, output):
        nonlocal total
        if isinstance(module, PixelToRegionRelation):
            query, key, value = inputs
            h, w = (x + x % 2 for x in query.shape[-2:])  # odd sizes are padded
            widths = key.shape[1] + value.shape[1]
            total += module.region_size**2 * widths * len(query) * h * w
        elif isinstance(module, nn.ConvTranspose2d):
            total += inputs[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        else:
            total += output.numel() * module.in_features

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, PixelToRegionRelation)
    handles = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize("name", SEMANTIC)
def test_total_equals_a_count_with_hooks(root, name):
    path = str(root / "configs" / "cityscapes" / f"{name}.yaml")
    result = analyze_config(path, (90, 150), [])
    model = build_model(load_config(path, ["MODEL.DEVICE", "cpu"])).eval()
    step = max(model.backbone.size_divisibility, 1)
    x = torch.zeros(1, 3, -(-90 // step) * step, -(-150 // step) * step)
    expected = products_by_hooks(model, lambda: model.sem_seg_head(model.backbone(x), None))
    assert result["macs"]["total"] == expected
    assert sum(v for k, v in result["macs"].items() if k != "total") == expected
    assert result["params"] == sum(p.numel() for p in model.parameters())


def test_convolutions_are_counted_as_by_fvcore(root):
    path = str(root / "configs" / "cityscapes" / "semantic_fpn_R50.yaml")
    model = build_model(load_config(path, ["MODEL.DEVICE", "cpu"])).eval()
    count = FlopCountAnalysis(model.backbone, (torch.zeros(1, 3, 64, 96),))
    macs = analyze_config(path, (64, 96), [])["macs"]
    theirs = count.unsupported_ops_warnings(False).by_operator()["conv"]
    assert macs["backbone"] + macs["pyramid"] == theirs


def test_roi_heads_are_counted_once_per_proposal(root):
    path = str(root / "configs" / "cityscapes" / "rsp_panoptic_R50.yaml")
    few, many = (
        analyze_config(path, (64, 128), ["MODEL.RPN.POST_NMS_TOPK_TEST", n])["macs"]
        for n in ("100", "200")
    )
    assert set(few) == {"backbone", "pyramid", "head", "proposals", "roi_heads", "total"}
    model = build_model(load_config(path, ["MODEL.DEVICE", "cpu"])).eval()
    heads = model.roi_heads
    box = products_by_hooks(
        heads, lambda: heads.box_predictor(heads.box_head(torch.zeros(100, 128, 7, 7)))
    )
    assert many["roi_heads"] - few["roi_heads"] == box
    mask = products_by_hooks(heads, lambda: heads.mask_head.layers(torch.zeros(100, 128, 14, 14)))
    assert few["roi_heads"] == box + mask


def test_uncounted_operations_are_listed(root):
    path = str(root / "configs" / "cityscapes" / "rsp_semantic_light_R50.yaml")
    ops = {u["op"] for u in analyze_config(path, (64, 128), [])["uncounted"]}
    assert {"aten.native_batch_norm", "aten.silu", "aten.exp", "aten.upsample_bilinear2d"} <= ops
    assert not ops & {"aten.convolution", "aten.view", "aten.cat"}


def test_command_prints_and_writes_the_counts(root, tmp_path):
    out = tmp_path / "counts.json"
    names = ("deeplab_v3_R50", "rsp_semantic_R50", "rsp_semantic_light_R50")
    files = [f"configs/cityscapes/{name}.yaml" for name in names]
    command = ["tools/analyze_model.py", "--size", "1024x2048", "--json", out]
    for file in files:
        command += ["--config-file", file]
    done = python(*command, cwd=root)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    assert [r["config"] for r in results] == files
    assert format_table(results) in done.stdout
    deeplab, rsp, light = (r["macs"]["total"] for r in results)
    assert 1.25e12 < deeplab < 1.35e12
    assert rsp <= 0.25 * deeplab and rsp <= 0.327e12
    assert light <= 0.2 * deeplab


def test_unknown_config_is_reported_in_one_line(root):
    done = python("tools/analyze_model.py", "--config-file", "configs/none.yaml", cwd=root)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("analyze_model.py: no config file")


@pytest.mark.parametrize(
    "name, size, params, macs",
    [
        # from memory of the paper, within 1 %
        ("eseg_s", (1024, 2048), 6.85e6, 34.2e9),
        ("eseg_m", (1024, 2048), 20.00e6, 111.2e9),
        ("eseg_l", (1024, 2048), 70.51e6, 341.7e9),
        # our own variants
        ("eseg_lite_s", (512, 1024), 3.12e6, 4.0e9),
        ("eseg_lite_m", (640, 1280), 4.03e6, 8.4e9),
        ("eseg_lite_l", (1024, 2048), 6.98e6, 37.2e9),
    ],
)
def test_eseg_models_have_the_expected_size(root, name, size, params, macs):
    result = analyze_config(str(root / "configs" / "cityscapes" / f"{name}.yaml"), size, [])
    assert result["params"] == pytest.approx(params, rel=0.01)
    assert result["macs"]["total"] == pytest.approx(macs, rel=0.01)
