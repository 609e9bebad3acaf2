"""Every YAML of configs/ builds on the CPU and says what it trains."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

import eseg_d2  # noqa: F401, registers
from eseg_d2.engine import load_config

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
FILES = sorted(p for p in CONFIGS.rglob("*.yaml") if not p.name.startswith("Base-"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_config_builds_and_predicts(path):
    cfg = load_config(str(path), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    with torch.no_grad():
        (out,) = model([{"image": torch.zeros(3, 96, 160)}])
    assert out["panoptic_seg"][0].shape == (96, 160)
    assert out["sem_seg"].shape == (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 96, 160)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_written_class_counts_are_those_of_the_data(path):
    """So that the file also builds with Detectron2 alone, without load_config."""
    from detectron2.config import get_cfg

    written = get_cfg()
    eseg_d2.add_eseg_config(written)
    written.merge_from_file(str(path))
    cfg = load_config(str(path), [])
    assert written.MODEL.SEM_SEG_HEAD.NUM_CLASSES == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    assert written.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.ROI_HEADS.NUM_CLASSES


def test_importing_changes_none_of_detectron2s_defaults():
    from detectron2.config import get_cfg

    plain, ours = get_cfg(), get_cfg()
    eseg_d2.add_eseg_config(ours)
    for name in "BIFPN", "RSP_HEAD", "PANOPTIC":
        del ours.MODEL[name]
    del ours.DATASETS["PANOPTIC"]
    assert plain.dump() == ours.dump()
