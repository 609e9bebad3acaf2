"""The head of RSP; what it shares with other heads is tested in test_heads.py."""

import logging
import math
import shutil

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch._subclasses.fake_tensor import FakeTensorMode

from eseg_d2.layers import rsp
from eseg_d2.layers.rsp import RSE, propagate
from eseg_d2.modeling.sem_seg.rsp_head import RSPHead


def features(levels, channels, height, width, batch=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {
        f"p{i}": torch.randn(
            batch, channels, math.ceil(height / 2**i), math.ceil(width / 2**i), generator=rng
        )
        for i in levels
    }


def head(levels=(2, 3, 4), channels=16, width=16, **options):
    shapes = {f"p{i}": ShapeSpec(channels=channels, stride=2**i) for i in reversed(levels)}
    options = {"num_classes": 5, "channels": width, "num_heads": 4, **options}
    return RSPHead(shapes, **options)


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("region_size", [1, 3, 5])
def test_every_option_gives_gradients_everywhere(region_size, separable):
    model = head(channels=24, separable=separable, region_size=region_size)
    _, losses = model(features((2, 3, 4), 24, 37, 51), torch.zeros(2, 37, 51, dtype=torch.int64))
    losses["loss_sem_seg"].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_levels_that_are_not_consecutive_are_refused():
    with pytest.raises(ValueError, match="consecutive powers of two"):
        head((2, 4))
    with pytest.raises(ValueError, match="consecutive powers of two"):
        RSPHead({"a": ShapeSpec(channels=8, stride=6), "b": ShapeSpec(channels=8, stride=12)},
                num_classes=2)  # fmt: skip


def test_highest_level_reaches_every_pixel_of_the_lowest():
    """Convolutions alone would not reach this far."""
    model = head((2, 3, 4, 5, 6)).eval()
    x = features((2, 3, 4, 5, 6), 16, 128, 128, batch=1)
    with torch.no_grad():
        before = model.layers(x)
        x["p6"] = x["p6"] + 1
        changed = (model.layers(x) - before).abs().amax(1)
    assert (changed > 0).float().mean() > 0.99


def test_initial_head_adds_levels_almost_bilinearly():
    """With queries of zero, the head sums convolved levels that are upsampled bilinearly."""
    model = head((2, 3)).eval()
    propagator = model.propagators["p2"]
    for parameter in propagator.rse.query.parameters():
        torch.nn.init.zeros_(parameter)
    x = features((2, 3), 16, 128, 128)
    with torch.no_grad():
        got = propagate(model.laterals, model.propagators, x)["p2"]
        upsampled = torch.nn.functional.interpolate(x["p3"], scale_factor=2, mode="bilinear")
        error = got - (propagator.conv(x["p2"]) + upsampled)
    assert error.std() < 0.15 * upsampled.std()


def test_relation_weights_are_distributions():
    x = features((2, 3), 16, 37, 51)
    weights = RSE(16, num_heads=4).relation_weights(x["p2"], x["p3"])
    assert weights.shape == (2, 4, 9, 10, 13)
    torch.testing.assert_close(weights.sum(2), torch.ones_like(weights.sum(2)))


def test_on_one_level_the_head_is_a_1x1_convolution():
    model = head((2,)).eval()
    x = features((2,), 16, 37, 51)
    torch.testing.assert_close(model.layers(x), model.predictor(x["p2"]), rtol=0, atol=0)
    assert [name for name, _ in model.named_parameters()] == ["predictor.weight", "predictor.bias"]


@pytest.mark.parametrize("norm", ["BN", "GN", ""])
def test_every_parameter_has_an_effect(norm):
    """A parameter that cancels out has a gradient of mere rounding errors."""
    torch.manual_seed(0)
    # 64 channels give each of the 32 groups of group norm more than one
    model = head(channels=64, width=64, norm=norm).double()
    x = {k: v.double() for k, v in features((2, 3, 4), 64, 64, 96).items()}
    _, losses = model(x, torch.randint(0, 5, (2, 64, 96)))
    losses["loss_sem_seg"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 1e-10, name


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="fake tensors on cuda ask for a real GPU"
)
@pytest.mark.parametrize("compile, device", [(True, "cuda"), (True, "cpu"), (False, "cuda")])
def test_relation_is_compiled_only_on_a_gpu_and_if_configured(compile, device, monkeypatch):
    calls = []

    def relate(relation, *operands):
        calls.append(relation)
        return relation(*operands)

    monkeypatch.setattr(rsp, "compiled_relation", lambda: relate)
    with FakeTensorMode(), torch.device(device):
        model = head(compile=compile)
        shapes = [(2, 16, 24 // 2**i, 32 // 2**i) for i in range(3)]
        levels = {f"p{i + 2}": torch.empty(shape) for i, shape in enumerate(shapes)}
        model.layers(levels)
    assert len(calls) == (2 if compile and device == "cuda" else 0)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no compiler")
def test_compiled_relation_is_one_graph_and_equals_eager(monkeypatch):
    monkeypatch.setattr(rsp.importlib.util, "find_spec", lambda name: name == "triton")
    rsp.compiled_relation.cache_clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    relate = rsp.compiled_relation()
    monkeypatch.undo()
    rse = RSE(8, num_heads=2)
    with torch.no_grad():
        operands = torch.randn(1, 8, 6, 10), torch.randn(1, 8, 3, 5), torch.randn(1, 8, 3, 5)
        expected = rse.relation(*operands)
        torch.testing.assert_close(relate(rse.relation, *operands), expected, rtol=0, atol=1e-5)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    rsp.compiled_relation.cache_clear()


def test_relation_runs_eagerly_with_a_warning_without_a_compiler(monkeypatch, caplog):
    monkeypatch.setattr(rsp.shutil, "which", lambda name: None)
    rsp.compiled_relation.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert rsp.compiled_relation() is rsp.PixelToRegionRelation.__call__
        rsp.compiled_relation()
    rsp.compiled_relation.cache_clear()
    assert caplog.text.count("MODEL.RSP_HEAD.COMPILE False asks for this") == 1
