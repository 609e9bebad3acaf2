"""EfficientNets of timm as backbones."""

import math

import pytest
import timm
import torch

from eseg_d2.modeling.backbone.efficientnet import EfficientNet

RES = ["res2", "res3", "res4", "res5"]
NAMES = ("efficientnet_b0", "efficientnet_lite0", "tf_efficientnet_b1", "tf_efficientnetv2_b0")


@pytest.mark.parametrize("name", NAMES)
def test_every_family_has_features_of_the_declared_shapes(name):
    backbone = EfficientNet(name, out_features=["res1", *RES]).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 65, 97))
    shapes = backbone.output_shape()
    assert [s.stride for s in shapes.values()] == [2, 4, 8, 16, 32]
    for feature, shape in shapes.items():
        h, w = (math.ceil(x / shape.stride) for x in (65, 97))
        assert features[feature].shape == (1, shape.channels, h, w)


def test_features_equal_those_of_timm():
    backbone = EfficientNet("efficientnet_b0", out_features=["res3", "res5"]).eval()
    reference = timm.create_model("efficientnet_b0", features_only=True, out_indices=(2, 4)).eval()
    reference.load_state_dict(backbone.network.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(backbone(x).values(), reference(x), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_lite_options_replace_activation_and_squeeze_excite():
    lite = EfficientNet(
        "efficientnet_b0", out_features=RES, squeeze_excite=False, activation="relu"
    )
    kinds = {type(m).__name__ for m in lite.modules()}
    assert "SqueezeExcite" not in kinds and "SiLU" not in kinds and "ReLU" in kinds
    full = {type(m).__name__ for m in EfficientNet("efficientnet_b0", out_features=RES).modules()}
    assert "SqueezeExcite" in full and "SiLU" in full


@pytest.mark.parametrize("freeze_at, frozen", [(0, 0), (1, 0), (2, 2), (4, 5), (5, 7)])
def test_freeze_at_freezes_stem_and_stages(freeze_at, frozen):
    backbone = EfficientNet("efficientnet_b0", out_features=RES, freeze_at=freeze_at).train()
    stem = backbone.network.bn1
    assert stem.weight.requires_grad == stem.training == (freeze_at == 0)
    for number, stage in enumerate(backbone.network.blocks):
        norms = [m for m in stage.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            assert norm.training == norm.weight.requires_grad == (number >= frozen)


def test_drop_path_is_random_in_training_only():
    backbone = EfficientNet("efficientnet_b0", out_features=["res5"], drop_path_rate=0.9)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for norm in backbone.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 0.0
        first, second = (backbone.train()(x)["res5"] for _ in range(2))
        assert not torch.equal(first, second)
        torch.testing.assert_close(*(backbone.eval()(x)["res5"] for _ in range(2)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "resnet18"}, "NAME is 'resnet18'"),
        ({"name": "efficientnet_b99"}, "NAME is 'efficientnet_b99'"),
        (
            {"name": "efficientnet_b1.ft_in1k"},
            "such as 'efficientnet_b1'.*WEIGHTS 'timm://efficientnet_b1.ft_in1k'",
        ),
        ({"out_features": ["p3"]}, "OUT_FEATURES is .'p3'."),
        ({"out_features": []}, "OUT_FEATURES is"),
        ({"activation": "tanh"}, "ACTIVATION is 'tanh'"),
        ({"norm": "GN"}, "NORM is 'GN'"),
        ({"freeze_at": 6}, "FREEZE_AT is 6"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EfficientNet(**{"name": "efficientnet_b0", "out_features": RES, **options})
