"""The head of ESeg; what it shares with other heads is tested in test_heads.py."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch import nn

from eseg_d2.modeling.sem_seg.eseg_head import ESegHead


def head(levels=(3, 4, 5), channels=8, **options):
    shapes = {f"p{i}": ShapeSpec(channels=channels, stride=2**i) for i in reversed(levels)}
    return ESegHead(shapes, num_classes=5, **options)


def features(levels, height, width, channels=8, batch=2):
    torch.manual_seed(0)
    return {
        f"p{i}": torch.randn(batch, channels, -(-height // 2**i), -(-width // 2**i)) for i in levels
    }


def test_one_level_is_enough():
    logits, _ = head((3,)).eval()(features((3,), 33, 65))
    assert logits.shape == (2, 5, 40, 72)


def test_logits_equal_the_formula():
    """They are a weighted sum of resized levels, separable 3x3, norm, activation and 1x1."""
    model = head((3, 4), activation="relu").double().eval()
    with torch.no_grad():
        model.fuse.weight.copy_(torch.tensor([3.0, 1.0]))
        x = {k: v.double() for k, v in features((3, 4), 64, 64).items()}
        up = F.interpolate(x["p4"], size=(8, 8), mode="bilinear", align_corners=False)
        fused = (3 * x["p3"] + up) / (4 + 1e-4)
        conv = model.conv.conv
        y = F.conv2d(fused, conv.depthwise.weight, padding=1, groups=8)
        y = F.conv2d(y, conv.pointwise.weight, conv.pointwise.bias)
        norm = model.conv.norm
        y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        expected = F.conv2d(y.relu(), model.predictor.weight, model.predictor.bias)
        torch.testing.assert_close(model.layers(x), expected)


def test_invalid_options_are_refused():
    with pytest.raises(ValueError, match="activation is 'x'"):
        head(activation="x")
    shapes = {"a": ShapeSpec(channels=8, stride=8), "b": ShapeSpec(channels=16, stride=16)}
    with pytest.raises(ValueError, match="expected one width"):
        ESegHead(shapes, num_classes=2)
    assert isinstance(head().activation, nn.SiLU)
