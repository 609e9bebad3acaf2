"""Checkpoints of small models whose random predictors find many things."""

import pytest
import torch

SMALL = ("INPUT.MIN_SIZE_TEST", "64", "MODEL.DEVICE", "cpu")


def _save(root, folder, config: str, overrides=()) -> tuple[str, list[str], str]:
    from detectron2.modeling import build_model

    from eseg_d2.engine import load_config

    path = str(root / "configs/scenes" / f"{config}.yaml")
    overrides = [*SMALL, *overrides]
    cfg = load_config(path, overrides)
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, weight in model.named_parameters():
        if "predictor" in name and weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.5)
    weights = str(folder / "model.pth")
    torch.save({"model": model.state_dict()}, weights)
    return path, overrides, weights


@pytest.fixture(scope="session")
def panoptic_model(root, tmp_path_factory):
    """Return (config file, overrides, weights) of a panoptic model on street scenes."""
    settings = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0")
    folder = tmp_path_factory.mktemp("panoptic")
    return _save(root, folder, "rsp_panoptic_R18_cityscapes", settings)


@pytest.fixture(scope="session")
def semantic_model(root, tmp_path_factory):
    """Return (config file, overrides, weights) of a semantic model on street scenes."""
    return _save(root, tmp_path_factory.mktemp("semantic"), "semantic_fpn_R50")


@pytest.fixture(scope="session")
def instance_model(root, tmp_path_factory):
    """Return (config file, overrides, weights) of a Mask R-CNN on COCO's things."""
    settings = ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "DATASETS.TRAIN", "()")
    settings += ("DATASETS.TEST", "('coco_2017_val',)", "MODEL.ROI_HEADS.NUM_CLASSES", "80")
    settings += ("MODEL.BACKBONE.NAME", "build_bifpn_backbone")
    folder = tmp_path_factory.mktemp("instance")
    return _save(root, folder, "rsp_panoptic_R18_cityscapes", settings)


@pytest.fixture(scope="session")
def scene(scenes):
    """Return the path of a 64x128 street scene."""
    return str(sorted(scenes.glob("street_scenes/cityscapes/leftImg8bit/val/*/*.png"))[0])
