"""Properties of every backbone of ours. Add new ones to BACKBONES."""

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone

from eseg_d2.config import add_eseg_config

RES = ["res2", "res3", "res4", "res5"]
EFFICIENTNET = ("MODEL.EFFICIENTNET.NAME", "efficientnet_b0")
BIFPN = ("MODEL.BACKBONE.NAME", "build_bifpn_backbone", "MODEL.BIFPN.IN_FEATURES", RES)
BIFPN += ("MODEL.BIFPN.MIN_LEVEL", 2, "MODEL.BIFPN.MAX_LEVEL", 9, "MODEL.BIFPN.OUT_CHANNELS", 16)
RSP = ("MODEL.BACKBONE.NAME", "build_rsp_backbone", "MODEL.RSP_HEAD.CHANNELS", 16)
# name -> (config options, strides of its features)
BACKBONES = {
    "efficientnet": (
        ("MODEL.BACKBONE.NAME", "build_efficientnet_backbone", *EFFICIENTNET),
        dict(zip(RES, (4, 8, 16, 32), strict=True)),
    ),
    "efficientnet_fpn": (
        ("MODEL.BACKBONE.NAME", "build_efficientnet_fpn_backbone", *EFFICIENTNET),
        {f"p{level}": 2**level for level in range(2, 7)},
    ),
    "bifpn_on_efficientnet": (
        (*BIFPN, "MODEL.BIFPN.BOTTOM_UP", "build_efficientnet_backbone", *EFFICIENTNET),
        {f"p{level}": 2**level for level in range(2, 10)},
    ),
    "bifpn_on_resnet": (BIFPN, {f"p{level}": 2**level for level in range(2, 10)}),
    "rsp_on_resnet": (RSP, {f"p{level}": 2**level for level in range(2, 7)}),
    "rsp_on_bifpn": (
        (*BIFPN, *RSP, "MODEL.RSP_PYRAMID.BOTTOM_UP", "build_bifpn_backbone")
        + ("MODEL.RSP_PYRAMID.IN_FEATURES", [f"p{level}" for level in range(2, 10)]),
        {f"p{level}": 2**level for level in range(2, 11)},
    ),
}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    """Return a backbone and the expected strides of its features."""
    cfg = get_cfg()
    add_eseg_config(cfg)
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = RES
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.FPN.OUT_CHANNELS = "BN", 16
    options, strides = BACKBONES[request.param]
    cfg.merge_from_list([*options])
    torch.manual_seed(0)
    return build_backbone(cfg), strides


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_features_have_the_declared_shapes(backbone, size):
    model, strides = backbone
    with torch.no_grad():
        features = model.eval()(torch.randn(2, 3, *size))
    shapes = model.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == strides
    assert [*features] == [*strides]
    for name, shape in shapes.items():
        cells = [math.ceil(length / shape.stride) for length in size]
        assert features[name].shape == (2, shape.channels, *cells)
        assert features[name].isfinite().all()


def test_pyramids_do_not_pad(backbone):
    """Levels above those of the bottom-up may have any size."""
    model, _ = backbone
    assert model.size_divisibility <= 32


def test_every_parameter_learns(backbone):
    model, _ = backbone
    features = model.train()(torch.randn(2, 3, 64, 96))
    sum((x * torch.randn_like(x)).sum() for x in features.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
