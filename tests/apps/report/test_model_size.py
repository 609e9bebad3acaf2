"""Counts by part against the model's own parameters."""

import pytest
from detectron2.modeling import build_model

from eseg_d2.apps.report.model_size import model_size, parameters_by_part
from eseg_d2.engine import load_config


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ("rsp_panoptic_R18_coco", ["backbone", "pyramid", "head", "proposals", "roi_heads"]),
        ("deeplab_v3_R50", ["backbone", "head"]),
    ],
)
def test_parts_add_up(config, parts, root, scenes):
    cfg = load_config(str(root / f"configs/scenes/{config}.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    counts = parameters_by_part(model)
    assert [*counts] == parts
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    size = model_size(cfg)
    assert size["params"] == counts and [*size["macs"]] == parts
    assert size["size"] == (192, 384)  # of 64x128, by INPUT.MIN_SIZE_TEST
    assert cfg.MODEL.DEVICE == "cpu"


def test_without_the_data_set_only_parameters_are_counted(root, scenes):
    cfg = load_config(str(root / "configs/scenes/rsp_panoptic_R18_coco.yaml"), [])
    cfg.DATASETS.TEST = ("coco_2017_val_panoptic",)
    size = model_size(cfg)
    assert size["params"] and size["macs"] == {} and size["size"] is None
