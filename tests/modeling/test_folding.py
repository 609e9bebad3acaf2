"""Folding for inference: norms, weights of fusions and activations equal what they replace."""

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_model
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from eseg_d2 import Predictor, load_config
from eseg_d2.layers.fusion import FusionNode, WeightedFusion
from eseg_d2.layers.rsp import RSE, RSP
from eseg_d2.modeling import folding
from eseg_d2.modeling.backbone.efficientnet import EfficientNet
from eseg_d2.modeling.folding import FusedConv2d, fuse_conv_activation, fuse_conv_norm

NAMES = ("eseg_s", "eseg_lite_s", "rsp_semantic_R50", "semantic_fpn_R50", "deeplab_v3_R50")


def disturb_norms(model):
    """Randomise norms and fusion weights, whose initial values would hide many mistakes."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (_BatchNorm, FrozenBatchNorm2d)):
            for name, low, high in (
                *(("running_mean", -0.2, 0.2), ("running_var", 0.5, 1.5)),
                *(("weight", 0.5, 1.5), ("bias", -0.2, 0.2)),
            ):
                tensor = getattr(module, name).data
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
        elif isinstance(module, WeightedFusion) and module.weight is not None:
            weight = module.weight.data
            # some are negative, which switches them off
            weight.copy_(torch.rand(weight.shape, generator=generator) - 0.1)


@pytest.mark.parametrize("name", NAMES)
def test_folded_model_has_no_norms_and_equals_the_model(root, name):
    path = str(root / "configs" / "cityscapes" / f"{name}.yaml")
    model = build_model(load_config(path, ["MODEL.DEVICE", "cpu"])).double().eval()
    disturb_norms(model)
    fused = fuse_conv_norm(model)
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected, ours = (m.sem_seg_head(m.backbone(x))[0] for m in (model, fused))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)

    def norms(m):
        return sum(isinstance(x, (_BatchNorm, FrozenBatchNorm2d)) for x in m.modules())

    assert norms(fused) == 0
    fusions = [m for m in fused.modules() if isinstance(m, WeightedFusion)]
    assert all(fusion.weight is None for fusion in fusions)
    assert bool(fusions) == name.startswith(("eseg", "rsp"))
    assert any(p.requires_grad for p in model.parameters())


def fusion_node(edges, **options):
    options |= {"norm": torch.nn.BatchNorm2d, "separable": True, "downsample": "max_pool"}
    node = FusionNode(edges=edges, out_channels=4, **options).eval()
    disturb_norms(node)
    return node


def test_group_norms_and_sums_are_kept():
    rsp = RSP(RSE(32), channels=32, norm="GN").eval()
    low, high = torch.randn(1, 32, 6, 8), torch.randn(1, 32, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(fuse_conv_norm(rsp)(low, high), rsp(low, high))
    node = fusion_node([(4, 0), (8, 1)], fusion="sum", activation="swish")
    maps = torch.randn(1, 4, 6, 8), torch.randn(1, 8, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(fuse_conv_norm(node)(maps), node(maps))


@pytest.mark.parametrize(("weights", "left"), [([1, -1], [0]), ([-1, 1], [1]), ([-1, 0], [0, 1])])
def test_edges_that_are_switched_off_are_left_out(weights, left):
    node = fusion_node([(8, 0), (8, 1)], fusion="fast_normalized", activation="relu")
    node.fusion.weight.data = torch.tensor(weights, dtype=torch.float32)
    fused = fuse_conv_norm(node)
    computed = []
    for i, edge in enumerate(fused.edges):
        edge.register_forward_hook(lambda *_, i=i: computed.append(i))
    maps = torch.randn(1, 8, 6, 8), torch.randn(1, 8, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(fused(maps), node(maps))
    assert computed == left  # all of them where all are off: something has to be summed up


def test_training_mode_is_refused():
    conv = Conv2d(2, 2, 1, norm=torch.nn.BatchNorm2d(2))
    with pytest.raises(ValueError, match="training mode"):
        fuse_conv_norm(conv.train())


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
    monkeypatch.setattr(folding, "_OPERATION", None)  # as in a PyTorch without the operation
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
