"""Bilinear resizing against torch.nn.functional.interpolate."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from eseg_d2.layers.resize import resize_bilinear

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
