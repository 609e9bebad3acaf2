"""Weighted fusion, the nodes of a BiFPN and its layers."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eseg_d2.layers.fusion import BiFPNLayer, FusionNode, WeightedFusion

OPTIONS = {
    "norm": nn.BatchNorm2d,
    "fusion": "fast_normalized",
    "activation": "swish",
    "separable": True,
    "downsample": "max_pool",
}


@settings(deadline=None, max_examples=50)
@given(weights=st.lists(st.floats(-2, 2), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_fast_normalized_fusion_equals_its_formula(weights, seed):
    torch.manual_seed(seed)
    fusion = WeightedFusion(len(weights)).double()
    fusion.weight.data = torch.tensor(weights, dtype=torch.float64)
    inputs = [torch.randn(2, 3, 2, 2, dtype=torch.float64) for _ in weights]
    positive = [max(w, 0.0) for w in weights]
    expected = sum(w / (sum(positive) + 1e-4) * x for w, x in zip(positive, inputs, strict=True))
    torch.testing.assert_close(fusion(inputs), expected, rtol=1e-12, atol=1e-12)


def test_sum_has_no_parameters_and_does_not_change_its_inputs():
    fusion = WeightedFusion(3, mode="sum")
    inputs = [torch.full((1, 1, 2, 2), float(i)) for i in range(1, 4)]
    assert not list(fusion.parameters())
    assert torch.equal(fusion(inputs), torch.full((1, 1, 2, 2), 6.0))
    assert [x.unique().item() for x in inputs] == [1, 2, 3]
    assert torch.equal(fusion.normalized_weights(), torch.ones(3))


def test_initial_weights_are_equal_and_learn():
    fusion = WeightedFusion(2)
    torch.testing.assert_close(fusion.normalized_weights(), torch.full((2,), 1 / 2.0001))
    fusion([torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)]).sum().backward()
    assert fusion.weight.grad[0] > 0 > fusion.weight.grad[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_fusion_keeps_the_dtype_of_its_inputs(dtype):
    inputs = [torch.randn(1, 2, 3, 3).to(dtype) for _ in range(3)]
    assert WeightedFusion(3)(inputs).dtype == dtype


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match="is 0; expected >= 1"):
        WeightedFusion(0)
    with pytest.raises(ValueError, match="got 3 maps; it was made for 2"):
        WeightedFusion(2)([torch.zeros(1, 1, 1, 1)] * 3)


@pytest.mark.parametrize("edge", [0, 1, 2])
@torch.no_grad()
def test_each_fusion_weight_switches_off_its_own_input(edge):
    node = FusionNode(edges=[(2, 0), (2, 0), (2, -1)], out_channels=2, **OPTIONS).eval()
    inputs = [torch.randn(1, 2, 2, 2), torch.randn(1, 2, 2, 2), torch.randn(1, 2, 4, 4)]
    changed = [x + 1 if i == edge else x for i, x in enumerate(inputs)]
    assert not torch.allclose(node(inputs), node(changed))
    node.fusion.weight[edge] = -1
    assert torch.equal(node(inputs), node(changed))


def reach(layer, sizes, channels, source):
    """Return the indices of the outputs of `layer` that depend on its input `source`."""
    inputs = [torch.randn(1, c, *size) for c, size in zip(channels, sizes, strict=True)]
    before = layer(inputs)
    inputs[source] = inputs[source] + 1
    after = layer(inputs)
    return [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if not torch.equal(a, b)]


@pytest.mark.parametrize("num_levels", [2, 3, 5])
@torch.no_grad()
def test_every_level_of_a_layer_reaches_every_level(num_levels):
    torch.manual_seed(0)
    channels = [3 + i for i in range(num_levels)]
    sizes = [(math.ceil(19 / 2**i), math.ceil(34 / 2**i)) for i in range(num_levels)]
    make_node = partial(FusionNode, **OPTIONS)
    layer = BiFPNLayer(in_channels=channels, out_channels=8, make_node=make_node).eval()
    for source in range(num_levels):
        assert reach(layer, sizes, channels, source) == list(range(num_levels))
    assert [len(node.edges) for node in layer.top_down] == [2] * (num_levels - 1)
    assert [len(node.edges) for node in layer.bottom_up] == [3] * (num_levels - 2) + [2]
