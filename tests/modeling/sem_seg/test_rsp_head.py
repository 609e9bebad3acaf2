import logging
import math
import shutil

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch._subclasses.fake_tensor import FakeTensorMode

from eseg_d2.modeling.sem_seg import rsp
from eseg_d2.modeling.sem_seg.rsp import RSE, RSP
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


@pytest.mark.parametrize("levels", [(2, 3), (2, 3, 4, 5, 6, 7), (3, 4, 5, 6, 7, 8, 9), (5, 6)])
def test_any_consecutive_levels_train(levels):
    model = head(levels)
    x = features(levels, 16, 96, 160)
    targets = torch.randint(0, 5, (2, 96, 160))
    _, losses = model(x, targets)
    losses["loss_sem_seg"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    logits, _ = model.eval()(x)
    assert logits.shape == (2, 5, 96, 160)


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
@pytest.mark.parametrize("channels", [16, 24])
def test_one_image_with_1x1_maps_trains(norm, channels):
    """Batch norm would refuse a single value a channel."""
    levels = (3, 4, 5, 6, 7, 8, 9)
    model = head(levels, channels=channels, norm=norm)
    x = features(levels, channels, 64, 128, batch=1)
    _, losses = model(x, torch.zeros(1, 64, 128, dtype=torch.int64))
    losses["loss_sem_seg"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("similarity", ["dot_product", "squared_difference"])
@pytest.mark.parametrize("position", ["row_column", "mlp", "none"])
@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("output_conv", ["conv3x3", "separable", "conv1x1"])
def test_every_choice_gives_gradients_everywhere(similarity, position, fusion, output_conv):
    options = {"similarity": similarity, "position": position, "fusion": fusion}
    model = head(channels=24, output_conv=output_conv, **options)
    _, losses = model(features((2, 3, 4), 24, 37, 51), torch.zeros(2, 37, 51, dtype=torch.int64))
    losses["loss_sem_seg"].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_levels_are_taken_by_stride_and_checked():
    assert head((4, 2, 3)).in_features == ["p2", "p3", "p4"]
    for levels in (2, 4), (3,):
        with pytest.raises(ValueError, match="consecutive powers of two"):
            head(levels)
    with pytest.raises(ValueError, match="consecutive powers of two"):
        RSPHead({"a": ShapeSpec(channels=8, stride=6), "b": ShapeSpec(channels=8, stride=12)},
                num_classes=2)  # fmt: skip


def test_unknown_choices_are_named():
    with pytest.raises(ValueError, match="SEM_SEG_HEAD.LOSS_TYPE is 'x'"):
        head(loss_type="x")
    for key in "fusion", "output_conv":
        with pytest.raises(ValueError, match=f"RSP_HEAD.{key.upper()} is 'x'"):
            head(**{key: "x"})
    rse = RSE(low_channels=8, high_channels=8, channels=16)
    with pytest.raises(ValueError, match="8 and 16 channels"):
        RSP(rse, low_channels=8, channels=16)


@pytest.mark.parametrize("loss_type", ["cross_entropy", "hard_pixel_mining"])
def test_no_valid_pixel_gives_zero_loss_that_is_connected(loss_type):
    model = head(loss_type=loss_type)
    _, losses = model(features((2, 3, 4), 16, 32, 32), torch.full((2, 32, 32), 255))
    assert losses["loss_sem_seg"] == 0
    losses["loss_sem_seg"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_context_comes_from_far_above():
    """A change at the top changes all of the lowest level, which convolutions alone would not."""
    model = head((2, 3, 4, 5, 6)).eval()
    x = features((2, 3, 4, 5, 6), 16, 128, 128, batch=1)
    with torch.no_grad():
        before = model.layers(x)
        x["p6"] = x["p6"] + 1
        changed = (model.layers(x) - before).abs().amax(1)
    assert (changed > 0).float().mean() > 0.99


def test_relation_weights_are_distributions():
    model = head((2, 3, 4)).eval()
    weights = model.relation_weights(features((2, 3, 4), 16, 37, 51))
    assert {k: v.shape for k, v in weights.items()} == {
        "p2": (2, 4, 9, 10, 13),
        "p3": (2, 4, 9, 5, 7),
    }
    for w in weights.values():
        torch.testing.assert_close(w.sum(2), torch.ones_like(w.sum(2)))


@pytest.mark.parametrize("norm", ["BN", "GN", ""])
@pytest.mark.parametrize("similarity", ["dot_product", "squared_difference"])
@pytest.mark.parametrize("position", ["row_column", "mlp", "none"])
def test_weights_of_a_version_with_more_biases_give_the_same_logits(norm, similarity, position):
    options = {"width": 32, "norm": norm, "similarity": similarity, "position": position}
    old, new = (head(channels=32, **options).double() for _ in range(2))
    for propagator in old.propagators.values():  # as they were
        for conv in propagator.rse.key, propagator.rse.value:
            conv.bias = torch.nn.Parameter(torch.randn(conv.out_channels, dtype=torch.float64))
    with torch.no_grad():
        for tensor in [*old.parameters(), *old.buffers()]:
            if tensor.is_floating_point() and tensor.dim() == 1:  # norms as after some training
                tensor.uniform_(0.5, 1.5)
    assert len(old.state_dict()) > len(new.state_dict())
    new.load_state_dict(old.state_dict())
    x = {k: v.double() for k, v in features((2, 3, 4), 32, 37, 51).items()}
    with torch.no_grad():
        torch.testing.assert_close(new.eval()(x)[0], old.eval()(x)[0], rtol=1e-9, atol=1e-9)
    again = head(channels=32, **options).double()
    again.load_state_dict(new.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(x)[0], new(x)[0])


@pytest.mark.parametrize("norm", ["BN", "GN", ""])
@pytest.mark.parametrize("similarity", ["dot_product", "squared_difference"])
def test_no_parameter_is_without_effect(norm, similarity):
    """A gradient that is rounding alone belongs to a parameter that cancels."""
    torch.manual_seed(0)
    # group norm has 32 groups, each of more than one channel here
    model = head(channels=64, width=64, norm=norm, similarity=similarity).double()
    x = {k: v.double() for k, v in features((2, 3, 4), 64, 64, 96).items()}
    _, losses = model(x, torch.randint(0, 5, (2, 64, 96)))
    losses["loss_sem_seg"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 1e-10, name


@pytest.mark.parametrize("compile, device", [(True, "cuda"), (True, "cpu"), (False, "cuda")])
def test_the_relation_runs_compiled_on_a_gpu_if_asked(compile, device, monkeypatch):
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
def test_the_compiled_relation_is_one_graph_and_equal(monkeypatch):
    monkeypatch.setattr(rsp.importlib.util, "find_spec", lambda name: name == "triton")
    rsp.compiled_relation.cache_clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    relate = rsp.compiled_relation()
    monkeypatch.undo()
    rse = RSE(low_channels=8, high_channels=8, channels=8, num_heads=2)
    with torch.no_grad():
        operands = torch.randn(1, 8, 6, 10), torch.randn(1, 8, 3, 5), torch.randn(1, 8, 3, 5)
        expected = rse.relation(*operands)
        torch.testing.assert_close(relate(rse.relation, *operands), expected, rtol=0, atol=1e-5)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    rsp.compiled_relation.cache_clear()


def test_without_a_compiler_it_runs_eagerly_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(rsp.shutil, "which", lambda name: None)
    rsp.compiled_relation.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert rsp.compiled_relation() is rsp.PixelToRegionRelation.__call__
        rsp.compiled_relation()
    rsp.compiled_relation.cache_clear()
    assert caplog.text.count("MODEL.RSP_HEAD.COMPILE False asks for this") == 1
