"""Separable convolutions, and batch norm on a single value."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from eseg_d2.layers.separable_conv import ConvNorm, SeparableConv2d, init_conv


def per_pixel_separable(x, depthwise, pointwise, bias):
    """Compute the separable convolution of x (N, C, H, W) by loops over the output pixels."""
    n, channels, height, width = x.shape
    r = depthwise.shape[-1] // 2
    filtered = torch.zeros_like(x)
    for row in range(height):
        for col in range(width):
            for dy in range(-r, r + 1):
                for dx in range(-r, r + 1):
                    if 0 <= row + dy < height and 0 <= col + dx < width:
                        kernel = depthwise[:, 0, dy + r, dx + r]
                        filtered[:, :, row, col] += kernel * x[:, :, row + dy, col + dx]
    out = x.new_zeros(n, len(bias), height, width)
    for o in range(len(bias)):
        out[:, o] = bias[o] + sum(pointwise[o, c, 0, 0] * filtered[:, c] for c in range(channels))
    return out


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 3)])
def test_separable_conv_matches_a_loop_over_pixels(kernel_size, size):
    torch.manual_seed(0)
    conv = SeparableConv2d(3, 4, kernel_size=kernel_size).double()
    nn.init.normal_(conv.pointwise.bias)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = per_pixel_separable(
        x, conv.depthwise.weight, conv.pointwise.weight, conv.pointwise.bias
    )
    torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [0, 2, -1])
def test_separable_conv_refuses_even_kernels(kernel_size):
    with pytest.raises(ValueError, match=f"is {kernel_size}; an odd number"):
        SeparableConv2d(2, 2, kernel_size=kernel_size)


@pytest.mark.parametrize("groups", [1, 64])
def test_init_conv_keeps_the_variance(groups):
    torch.manual_seed(0)
    conv = init_conv(nn.Conv2d(64, 64, 3, padding=1, groups=groups))
    assert torch.equal(conv.bias, torch.zeros(64))
    out = conv(torch.randn(4, 64, 32, 32))[..., 1:-1, 1:-1]
    assert out.var().item() == pytest.approx(1, rel=0.15)


def make_conv_norm(norm):
    """Return a ConvNorm from 2 to 4 channels whose norm has random parameters and statistics."""
    torch.manual_seed(0)
    for tensor in [*norm.parameters(), *norm.buffers()] if norm else []:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2)
    return ConvNorm(nn.Conv2d(2, 4, 1), norm)


def test_conv_norm_without_norm_is_the_convolution():
    module = make_conv_norm(None)
    x = torch.randn(1, 2, 1, 1)
    assert torch.equal(module(x), module.conv(x))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_batch_norm_on_a_single_value_uses_and_keeps_the_running_statistics(norm):
    module = make_conv_norm(norm(4)).train()
    before = {name: tensor.clone() for name, tensor in module.norm.state_dict().items()}
    x = torch.randn(1, 2, 1, 1, requires_grad=True)
    out = module(x)
    y = module.conv(x).flatten()
    scale = (before["running_var"] + module.norm.eps).rsqrt()
    expected = (y - before["running_mean"]) * scale * before["weight"] + before["bias"]
    torch.testing.assert_close(out.flatten(), expected)
    assert all(torch.equal(before[name], t) for name, t in module.norm.state_dict().items())
    (out * torch.arange(1.0, 5.0).view(1, 4, 1, 1)).sum().backward()
    for tensor in (x, *module.parameters()):
        assert tensor.grad.abs().sum() > 0
    module.eval()
    torch.testing.assert_close(module(x), out)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm])
@pytest.mark.parametrize("shape", [(2, 2, 1, 1), (1, 2, 1, 2), (3, 2, 4, 5)])
def test_batch_norm_on_more_values_uses_their_statistics(norm, shape):
    module = make_conv_norm(norm(4)).train()
    before = module.norm.running_mean.clone()
    y = module.conv(x := torch.randn(shape))
    expected = F.batch_norm(y, None, None, module.norm.weight, module.norm.bias, training=True)
    torch.testing.assert_close(module(x), expected)
    assert not torch.equal(module.norm.running_mean, before)


def test_group_norm_on_a_single_value_is_unchanged():
    x = torch.randn(1, 2, 1, 1)
    module = make_conv_norm(nn.GroupNorm(2, 4))
    y = module.conv(x)
    assert torch.equal(module(x), F.group_norm(y, 2, module.norm.weight, module.norm.bias))


class CountingNorm(nn.BatchNorm2d):
    """A stand-in for a batch norm that shares its statistics with other processes."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x


@pytest.mark.parametrize("world_size", [1, 2])
def test_synchronised_norms_are_always_called_with_several_processes(monkeypatch, world_size):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: world_size)
    x = torch.randn(1, 2, 1, 1)
    module = make_conv_norm(CountingNorm(4)).train()
    module(x)
    assert module.norm.calls == (0 if world_size == 1 else 1)
    plain = make_conv_norm(nn.BatchNorm2d(4)).train()
    assert plain(x).isfinite().all()
