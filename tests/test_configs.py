"""The YAML files of configs/: they build, and those to be compared differ only where intended."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config

import eseg_d2  # noqa: F401, registers
from eseg_d2.config import all_keys, load_config, value_of
from eseg_d2.engine.provenance import changed_keys, plain_config

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
FILES = sorted(p for p in CONFIGS.rglob("*.yaml") if not p.name.startswith("Base-"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_config_builds_and_predicts(path):
    cfg = load_config(str(path), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    with torch.no_grad():
        (out,) = model([{"image": torch.zeros(3, 96, 160)}])
    if cfg.MODEL.META_ARCHITECTURE == "PanopticRCNN":
        assert out["panoptic_seg"][0].shape == (96, 160)
    assert out["sem_seg"].shape == (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 96, 160)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_written_class_counts_are_those_of_the_data(path):
    """A config can therefore also be built by Detectron2 alone, without load_config."""
    written = get_cfg()
    eseg_d2.add_eseg_config(written)
    written.merge_from_file(str(path))
    cfg = load_config(str(path), [])
    assert written.MODEL.SEM_SEG_HEAD.NUM_CLASSES == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if cfg.MODEL.META_ARCHITECTURE == "PanopticRCNN":
        assert written.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.ROI_HEADS.NUM_CLASSES


def test_add_eseg_config_keeps_the_defaults_of_detectron2():
    plain, ours = get_cfg(), get_cfg()
    add_deeplab_config(plain)
    eseg_d2.add_eseg_config(ours)
    for key in {*all_keys(plain)} - {"MODEL.SEM_SEG_HEAD.LOSS_TYPE"}:
        if not isinstance(value_of(plain, key), CfgNode):
            assert value_of(ours, key) == value_of(plain, key), key


@pytest.mark.parametrize("data", ["cityscapes", "scenes", "camvid", "camvid/imagenet"])
def test_semantic_models_share_their_recipe(data):
    """Models that are compared must differ in nothing but the model."""
    names = ("rsp_semantic_R50", "semantic_fpn_R50", "deeplab_v3_R50")
    cfgs = [load_config(str(CONFIGS / data / f"{name}.yaml"), []) for name in names]
    for cfg in cfgs[1:]:
        for part in "DATASETS", "DATALOADER", "SOLVER", "INPUT", "TEST", "SEED":
            assert cfg[part] == cfgs[0][part], part
        for key in "DEPTH", "NORM", "STEM_OUT_CHANNELS", "WIDTH_PER_GROUP", "RES2_OUT_CHANNELS":
            assert cfg.MODEL.RESNETS[key] == cfgs[0].MODEL.RESNETS[key], key
        for key in "WEIGHTS", "PIXEL_MEAN", "PIXEL_STD", "BACKBONE.FREEZE_AT":
            assert value_of(cfg.MODEL, key) == value_of(cfgs[0].MODEL, key), key


@pytest.mark.parametrize(
    "name, ablation, keys",
    [
        ("rsp_semantic_R50", "plain", {"MODEL.RSP_HEAD.REGION_SIZE"}),
        ("eseg_lite_s", "P5", {"MODEL.BIFPN.MAX_LEVEL", "MODEL.SEM_SEG_HEAD.IN_FEATURES"}),
        ("eseg_lite_s", "P9", {"MODEL.BIFPN.MAX_LEVEL", "MODEL.SEM_SEG_HEAD.IN_FEATURES"}),
    ],
)
def test_ablations_change_only_what_they_study(name, ablation, keys):
    files = [CONFIGS / "camvid" / f"{stem}.yaml" for stem in (name, f"{name}_{ablation}")]
    before, now = (plain_config(load_config(str(file), [])) for file in files)
    changed = {change.split(" ")[0] for change in changed_keys(before, now)}
    assert changed == {*keys, "OUTPUT_DIR"}
