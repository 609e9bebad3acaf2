"""Fusing feature maps: the weighted sum, a node of a BiFPN around it, and a repeat of nodes."""

import functools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from eseg_d2.layers.resample import Resample, scale_map
from eseg_d2.layers.separable_conv import ConvNorm, SeparableConv2d, init_conv
from eseg_d2.utils.errors import check_choice

__all__ = ["BiFPNLayer", "FusionNode", "WeightedFusion", "make_activation"]

_MODES = ("fast_normalized", "sum")
# In place a SiLU would keep a copy of its input for its gradient; a ReLU's comes from its output.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "swish": nn.SiLU,
    "relu": partial(nn.ReLU, inplace=True),
}


def make_activation(name: str) -> nn.Module:
    """Return an activation module: "swish" or "relu".

    Raises:
        ValueError: `name` is neither.
    """
    check_choice("activation", name, _ACTIVATIONS)
    return _ACTIVATIONS[name]()


class WeightedFusion(nn.Module):
    """Weighted sum of feature maps with one learned weight each, or their plain sum.

    "fast_normalized" is EfficientDet's fast normalised fusion (arXiv 1911.09070, section 3.3):
    with w_i = relu(weight_i), sum_i w_i x_i / (sum_i w_i + 1e-4). It is no softmax: a weight at or
    below zero switches its input off. "sum" has no parameters.

    A map is cheaper to weigh before it is enlarged than after: whoever enlarges maps takes the
    factors from :meth:`factors`, and sums the maps up itself.

    Shape:
        `num_inputs` float maps, all (N, C, H, W), to one (N, C, H, W) of the inputs' dtype.

    Attributes:
        constants: None, or factors that :meth:`freeze` computed once and for all.
    """

    epsilon = 1e-4
    constants: list[float | None] | None = None

    def __init__(self, num_inputs: int, *, mode: str = "fast_normalized"):
        """
        Args:
            num_inputs: how many maps are fused, at least 1.
            mode: "fast_normalized" or "sum".

        Raises:
            ValueError: `num_inputs` is below 1 or `mode` unknown.
        """
        super().__init__()
        if num_inputs < 1:
            raise ValueError(f"num_inputs of a WeightedFusion is {num_inputs}; expected >= 1")
        check_choice("fusion", mode, _MODES)
        self.num_inputs = num_inputs
        self.weight = nn.Parameter(torch.ones(num_inputs)) if mode == "fast_normalized" else None

    def normalized_weights(self) -> Tensor:
        """The factors of the inputs: float (num_inputs,), >= 0, sum just below 1; ones for "sum".

        With the initial weights of 1 each factor is 1 / (num_inputs + 1e-4).
        """
        if self.weight is None:
            return torch.ones(self.num_inputs)
        weight = self.weight.relu()
        return weight / (weight.sum() + self.epsilon)

    def factors(self) -> Sequence[Tensor | float | None]:
        """Return what to multiply each input with: a scalar, or None where it is 1."""
        if self.constants is not None:
            return self.constants
        if self.weight is None:
            return [None] * self.num_inputs
        return self.normalized_weights().unbind()

    def freeze(self) -> None:
        """Make the factors constants, for inference; their parameter is removed."""
        if self.weight is not None:
            self.constants = self.normalized_weights().tolist()
            self.weight = None

    def combine(self, inputs: Sequence[Callable[[Tensor | float | None], Tensor]]) -> Tensor:
        """Return the weighted sum of inputs that are computed when they are needed.

        What :meth:`freeze` found to be switched off is not; if all are off, they all are computed.

        Args:
            inputs: map a factor, see :meth:`factors`, to the input times the factor, all of one
                shape.
        """
        if len(inputs) != self.num_inputs:
            raise ValueError(
                f"WeightedFusion got {len(inputs)} maps; it was made for {self.num_inputs}"
            )
        weighed = [*zip(inputs, self.factors(), strict=True)]
        if self.constants is not None:
            weighed = [pair for pair in weighed if pair[1] != 0] or weighed
        return functools.reduce(torch.add, [weigh(factor) for weigh, factor in weighed])

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.combine([functools.partial(scale_map, x) for x in inputs])


class FusionNode(nn.Module):
    """One node: resample the inputs to its level, fuse, activate, convolve 3x3, normalise.

    EfficientDet's order (arXiv 1911.09070 and its public code): the activation comes before the
    convolution, the norm after it.

    Shape:
        one float map per edge, (N, channels, H', W'), to (N, out_channels, H, W), the size of the
        first.
    """

    def __init__(
        self,
        *,
        edges: Sequence[tuple[int, int]],
        out_channels: int,
        norm: Callable[[int], nn.Module | None],
        fusion: str,
        activation: str,
        separable: bool,
        downsample: str,
    ):
        """
        Args:
            edges: (channels, level offset) of each input, see
                :class:`~eseg_d2.layers.resample.Resample`; two or more, the first
                of the node's own level.
            out_channels: channels of the node.
            norm: makes the norm for a number of channels, or None for no norm.
            fusion: "fast_normalized" or "sum".
            activation: "swish" or "relu".
            separable: depthwise separable 3x3 convolution, or a full one.
            downsample: "max_pool" or "max_pool_same".

        Raises:
            ValueError: `fusion`, `activation` or `downsample` is none of those.
        """
        super().__init__()
        self.edges = nn.ModuleList(
            Resample(channels, out_channels, level_offset=offset, norm=norm, downsample=downsample)
            for channels, offset in edges
        )
        self.fusion = WeightedFusion(len(edges), mode=fusion)
        self.activation = make_activation(activation)
        conv: nn.Module
        if separable:
            conv = SeparableConv2d(out_channels, out_channels)
        else:
            conv = init_conv(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.conv = ConvNorm(conv, norm(out_channels))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        size = inputs[0].shape[-2:]
        edges = zip(self.edges, inputs, strict=True)
        total = self.fusion.combine([functools.partial(edge, x, size) for edge, x in edges])
        return self.conv(self.activation(total))


class BiFPNLayer(nn.Module):
    """One repeat of a BiFPN: a top-down pass, then a bottom-up pass, over n >= 2 levels.

    Top-down nodes fuse (own level, level above). Bottom-up nodes fuse (input of the level, top-down
    node of the level, level below), the top one, which has no top-down node, (input, level below).
    The lowest level ends with its top-down node. Every use of an input has a 1x1 of its own.

    Shape:
        n maps from the lowest to the highest level, level i float (N, in_channels[i], H_i, W_i),
        to n maps (N, out_channels, H_i, W_i) in the same order.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int,
        make_node: Callable[..., FusionNode],
    ):
        """
        Args:
            in_channels: channels of the inputs, from the lowest to the highest level; two or more.
            out_channels: channels of every node.
            make_node: :class:`FusionNode` with its other keywords than `edges` and
                `out_channels` bound.
        """
        super().__init__()
        width, top = out_channels, len(in_channels) - 1
        node = partial(make_node, out_channels=width)
        # Both in the order of computation: from the second highest level down to the lowest, then
        # from the second lowest level up to the highest.
        self.top_down = nn.ModuleList(
            node(edges=[(in_channels[i], 0), (in_channels[top] if i == top - 1 else width, +1)])
            for i in reversed(range(top))
        )
        self.bottom_up = nn.ModuleList(
            node(edges=[(in_channels[i], 0), *([(width, 0)] if i < top else []), (width, -1)])
            for i in range(1, top + 1)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        descent = [features[-1]]
        for node, x in zip(self.top_down, reversed(features[:-1]), strict=True):
            descent.append(node([x, descent[-1]]))
        lowest, *inner = descent[:0:-1]
        outputs = [lowest]
        for node, x, td in zip(self.bottom_up, features[1:], [*inner, None], strict=True):
            outputs.append(node([x, outputs[-1]] if td is None else [x, td, outputs[-1]]))
        return outputs
