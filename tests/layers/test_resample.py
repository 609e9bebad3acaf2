"""Resampling between the levels of a pyramid, and bilinear resizing against PyTorch's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from eseg_d2.layers.resample import Resample, make_downsampling, resize_bilinear

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def both_ways(x, size):
    """Return (values, gradients) of our resizing, and those of PyTorch's in float64."""
    generator = torch.Generator().manual_seed(1)
    towards = torch.randn(*x.shape[:2], *size, generator=generator)
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    resized = resize_bilinear(ours, size)
    expected = F.interpolate(theirs, size, mode="bilinear", align_corners=False)
    (resized * towards).sum().backward()
    (expected * towards).sum().backward()
    return (resized, ours.grad), (expected.float(), theirs.grad.float())


@settings(deadline=None, max_examples=80)
@given(size=SIZES, target=SIZES, seed=st.integers(0, 99), channels_last=st.booleans())
def test_values_and_gradients_are_those_of_interpolate(size, target, seed, channels_last):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(*both_ways(x, target), rtol=1e-4, atol=1e-5)


def test_large_maps_equal_interpolate():
    x = torch.randn(1, 2, 61, 127, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(*both_ways(x, (243, 509)), rtol=1e-4, atol=1e-4)


def test_autocast_does_not_change_the_result():
    x = torch.randn(1, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = resize_bilinear(x, (20, 28))
    assert inside.dtype == torch.float32
    assert torch.equal(inside, resize_bilinear(x, (20, 28)))


POOLS = ("max_pool", "max_pool_same")


def no_norm(_channels):
    return None


def pooling_start(name, size):
    """Return where the first window on `size` pixels starts, with kernel 3 and stride 2."""
    if name == "max_pool":
        return -1
    total = max((math.ceil(size / 2) - 1) * 2 + 3 - size, 0)  # TensorFlow's definition of SAME
    return -(total // 2)


def max_pool_by_loops(x, name):
    height, width = x.shape[-2:]
    out = x.new_empty(*x.shape[:2], math.ceil(height / 2), math.ceil(width / 2))
    top, left = pooling_start(name, height), pooling_start(name, width)
    for i in range(out.shape[-2]):
        for j in range(out.shape[-1]):
            rows = slice(max(top + 2 * i, 0), top + 2 * i + 3)
            cols = slice(max(left + 2 * j, 0), left + 2 * j + 3)
            out[..., i, j] = x[..., rows, cols].amax((-2, -1))
    return out


@settings(deadline=None, max_examples=60)
@given(size=SIZES, name=st.sampled_from(POOLS), seed=st.integers(0, 99))
def test_max_pools_match_a_loop(size, name, seed):
    # All values are negative, so that zero padding would show in the maximum.
    x = -torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed)) - 1
    assert torch.equal(make_downsampling(name)(x), max_pool_by_loops(x, name))


@settings(deadline=None, max_examples=60)
@given(size=SIZES, target=SIZES)
def test_upsampling_takes_the_nearest_neighbour(size, target):
    x = torch.randn(1, 2, *size)
    out = Resample(2, 2, level_offset=1, norm=no_norm)(x, target)
    rows = [i * size[0] // target[0] for i in range(target[0])]
    cols = [j * size[1] // target[1] for j in range(target[1])]
    assert torch.equal(out, x[..., rows, :][..., cols])


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("target", [(4, 5), (3, 5), (3, 4)])
def test_downsampling_fits_targets_rounded_up_or_down(name, target):
    x = torch.randn(1, 2, 7, 9)
    out = Resample(2, 2, level_offset=-1, norm=no_norm, downsample=name)(x, target)
    assert torch.equal(out, max_pool_by_loops(x, name)[..., : target[0], : target[1]])


@pytest.mark.parametrize("offset, size", [(-1, (2, 3)), (0, (4, 6)), (1, (8, 11))])
def test_lateral_is_applied_before_resampling_and_only_if_widths_differ(offset, size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 6)
    same_width = Resample(3, 3, level_offset=offset, norm=nn.BatchNorm2d)
    assert not list(same_width.parameters())
    edge = Resample(3, 5, level_offset=offset, norm=nn.BatchNorm2d).eval()
    edge.lateral.norm.running_mean.uniform_()
    resample_only = Resample(5, 5, level_offset=offset, norm=nn.BatchNorm2d)
    lateral = edge.lateral.norm(edge.lateral.conv(x))
    torch.testing.assert_close(edge(x, size), resample_only(lateral, size))
    assert edge(x, size).shape == (2, 5, *size)


@pytest.mark.parametrize("offset, size", [(-1, (2, 3)), (0, (4, 6)), (1, (8, 11))])
@pytest.mark.parametrize("factor", [0.0, 0.3, torch.tensor(0.3)])
def test_factor_scales_the_result(offset, size, factor):
    x = torch.randn(2, 3, 4, 6)
    edge = Resample(3, 3, level_offset=offset, norm=no_norm)
    torch.testing.assert_close(edge(x, size, factor), edge(x, size) * factor)


@pytest.mark.parametrize("name", POOLS)
def test_downsampling_keeps_channels_last_and_dtype(name):
    x = torch.randn(1, 4, 6, 8).to(torch.bfloat16, memory_format=torch.channels_last)
    out = Resample(4, 4, level_offset=-1, norm=no_norm, downsample=name)(x, (3, 4))
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match="downsample is 'avg'; expected one of .*max_pool_same"):
        make_downsampling("avg")
    with pytest.raises(ValueError, match="level_offset of a Resample is 2; expected -1, 0 or"):
        Resample(2, 2, level_offset=2, norm=no_norm)
