"""Convolutions fused with their activations equal the separate modules."""

import pytest
import torch
from detectron2.modeling import build_model
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import nn

from eseg_d2 import Predictor, load_config
from eseg_d2.inference import fused_conv
from eseg_d2.inference.fused_conv import FusedConv2d, fuse_conv_activation
from eseg_d2.modeling.backbone.efficientnet import EfficientNet
from eseg_d2.modeling.fuse import fuse_conv_norm

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "swish": nn.SiLU}


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(5, 20), st.integers(5, 20)),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    same=st.booleans(),
    depthwise=st.booleans(),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
)
def test_fused_convolution_equals_the_two_modules(
    size, kernel, stride, same, depthwise, activation
):
    torch.manual_seed(0)
    groups = 8 if depthwise else 1
    if same:
        conv = Conv2dSame(8, 8, kernel, stride=stride, groups=groups)
    else:
        conv = nn.Conv2d(8, 8, kernel, stride=stride, padding=kernel // 2, groups=groups)
    pair = nn.Sequential(conv, ACTIVATIONS[activation]()).requires_grad_(False)
    x = 4 * torch.randn(2, 8, *size)
    expected = pair(x)
    fuse_conv_activation(pair)
    assert isinstance(pair[0], FusedConv2d) == (not same or (stride == 2 and kernel > 1))
    torch.testing.assert_close(pair(x), expected)
    torch.testing.assert_close(pair.double()(x.double()).float(), expected)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnet_b0"])
def test_every_convolution_of_an_efficientnet_is_fused(name, monkeypatch):
    network = EfficientNet(name, out_features=["res2", "res5"], squeeze_excite=False)
    model = fuse_conv_norm(network.eval())
    x = torch.randn(1, 3, 75, 94)
    expected = model(x)
    fuse_conv_activation(model)
    assert sum(isinstance(m, FusedConv2d) for m in model.modules()) == 1 + 2 * 15 + 1
    torch.testing.assert_close(model(x), expected)
    traced = torch.jit.trace(model, x, strict=False, check_trace=False)
    torch.testing.assert_close(traced(x), expected)
    assert "mkldnn" not in str(traced.inlined_graph)
    monkeypatch.setattr(fused_conv, "_OPERATION", None)  # as in a PyTorch without the operation
    torch.testing.assert_close(model(x), expected)


class CallsInAnotherOrder(nn.Module):
    """A model with a convolution that is registered before an activation but called after it."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU()

    def forward(self, x):
        return self.second(self.relu(self.first(x)))


def test_neighbours_that_are_not_called_in_order_are_not_fused():
    model = CallsInAnotherOrder().requires_grad_(False)
    x = torch.randn(1, 4, 9, 9)
    expected = model(x)
    fuse_conv_activation(model)
    assert torch.equal(model(x), expected)


def test_fused_convolutions_compute_in_bfloat16_under_autocast(root):
    path = root / "configs" / "scenes" / "eseg_lite_s.yaml"
    cfg = load_config(str(path), ["MODEL.DEVICE", "cpu"])
    predictor = Predictor.from_model(cfg, build_model(cfg).eval(), autocast=torch.bfloat16)
    fused = [m for m in predictor.model.modules() if isinstance(m, FusedConv2d)]
    assert fused
    seen = []
    fused[3].register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    predictor(torch.zeros(64, 64, 3, dtype=torch.uint8).numpy())
    assert seen == [torch.bfloat16]
