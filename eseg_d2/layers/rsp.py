"""RSE and RSP: relational context handed down a pyramid, level by level."""

import functools
import importlib.util
import logging
import math
import shutil
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from torch import nn

from eseg_d2.layers.relation import PixelToRegionRelation
from eseg_d2.layers.separable_conv import ConvNorm, SeparableConv2d

__all__ = ["RSE", "RSP", "build_stack", "compiled_relation", "propagate", "stack_arguments"]

logger = logging.getLogger(__name__)

_COMPILERS = ("gcc", "clang", "cc")  # any one that Triton finds


class RSE(nn.Module):
    """Relational Semantics Extractor (RSP paper, abstract and introduction).

    A pixel of the lower level takes context from a k x k region of the adjacent higher level by
    a learned cross-scale relation. The paper's text that we could read does not say how query,
    key and value are made. Our choice: 1x1 convolutions, the query from the lower level, key and
    value from the higher one. The value's starts as the identity, so that at first, the relation
    being close to bilinear, a context is what an upsampling gives.
    """

    def __init__(
        self, channels: int, *, num_heads: int = 8, region_size: int = 3, compile: bool = False
    ):
        """
        Args:
            channels: width of both levels, and of query, key, value and context.
            num_heads, region_size: see :class:`~eseg_d2.layers.relation.PixelToRegionRelation`.
            compile: run the relation compiled on a GPU, if there is what torch.compile needs.
        """
        super().__init__()
        self.compile_on_gpu = compile
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)  # the softmax cancels a bias
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.dirac_(self.value.weight)
        self.relation = PixelToRegionRelation(
            channels, num_heads=num_heads, region_size=region_size
        )

    def forward(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """
        Args:
            low: (B, channels, H, W), level l.
            high: (B, channels, ceil(H / 2), ceil(W / 2)), level l + 1.

        Returns:
            (B, channels, H, W): the context of each low-level pixel.
        """
        operands = self.query(low), self.key(high), self.value(high)
        if self.compile_on_gpu and low.is_cuda and not torch.compiler.is_compiling():
            return compiled_relation()(self.relation, *operands)
        return self.relation(*operands)

    def relation_weights(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """For inspection: (B, heads, k * k, H, W), each pixel's weights over its region."""
        return self.relation.weights(self.query(low), self.key(high))


@functools.cache
def compiled_relation() -> Callable:
    """Return the relation as one compiled graph: a function of the module and its arguments.

    Where Triton or a C compiler is missing, a warning says so, and it runs eagerly.
    """
    if importlib.util.find_spec("triton") and any(map(shutil.which, _COMPILERS)):
        # not fullgraph: past PyTorch's limit of recompilations, for many sizes, that would raise
        return torch.compile(PixelToRegionRelation.__call__)
    logger.warning(
        "The relation runs eagerly, at a fraction of its speed: torch.compile needs Triton and a C "
        "compiler (%s). MODEL.RSP_HEAD.COMPILE False asks for this.",
        " or ".join(_COMPILERS),
    )
    return PixelToRegionRelation.__call__


class RSP(nn.Module):
    """Relational Semantics Propagator: X_l = ReLU(norm(conv3x3(P_l))) + RSE(P_l, X_{l+1}).

    That RSP is built on RSE is the paper's; the formula is our choice. The context is added behind
    the convolution, as Semantic FPN adds its levels: every level is one step away from the
    classifier, and thin things need not pass through what was upsampled. docs/design.md has the
    forms that were tried.
    """

    def __init__(self, rse: RSE, *, channels: int, separable: bool = False, norm: str = "BN"):
        """
        Args:
            rse: gives a context of ``channels`` channels.
            channels: width of the lower level and of the output.
            separable: a depthwise separable 3x3 convolution in place of a full one.
            norm: as in Detectron2's ``get_norm``.
        """
        super().__init__()
        self.rse = rse
        conv: nn.Module
        if separable:
            conv = SeparableConv2d(channels, channels)
        else:
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=norm == "")
        self.conv = nn.Sequential(ConvNorm(conv, get_norm(norm, channels)), nn.ReLU(inplace=True))

    def forward(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """
        Args:
            low: (B, channels, H, W), level l.
            high: (B, channels, ceil(H / 2), ceil(W / 2)), level l + 1.

        Returns:
            (B, channels, H, W): X_l.
        """
        return self.conv(low) + self.rse(low, high)


def build_stack(
    levels: dict[str, ShapeSpec],
    *,
    channels: int,
    num_heads: int,
    region_size: int,
    separable: bool,
    compile: bool,
    norm: str,
) -> tuple[nn.ModuleDict, nn.ModuleDict]:
    """Build what :func:`propagate` runs over the levels of a pyramid.

    Args:
        levels: with ``channels`` and ``stride``, the lowest first.
        channels: width of the stack. Levels of another width first pass a 1x1 and a norm.
        num_heads, region_size, compile: of each :class:`RSE`.
        separable: of each :class:`RSP`.
        norm: as in Detectron2's ``get_norm``.

    Returns:
        The laterals of all levels and the RSPs of all but the highest, by name.

    Raises:
        ValueError: the strides are not consecutive powers of two.
    """
    strides = {name: shape.stride for name, shape in levels.items()}
    exponents = [math.log2(stride) for stride in strides.values()]
    if exponents[0] % 1 or exponents != [exponents[0] + i for i in range(len(exponents))]:
        raise ValueError(
            f"RSP got the levels (name: stride) {strides}; expected strides that are consecutive "
            "powers of two, as of p3, p4, p5. Set MODEL.SEM_SEG_HEAD.IN_FEATURES (for the pyramid, "
            "MODEL.RSP_PYRAMID.IN_FEATURES)"
        )
    laterals, propagators = nn.ModuleDict(), nn.ModuleDict()
    for name, shape in levels.items():
        laterals[name] = _lateral(shape.channels, channels, norm)
    for name in [*levels][:-1]:
        rse = RSE(channels, num_heads=num_heads, region_size=region_size, compile=compile)
        propagators[name] = RSP(rse, channels=channels, separable=separable, norm=norm)
    return laterals, propagators


def stack_arguments(cfg: CfgNode) -> dict:
    """Return the arguments of :func:`build_stack` that are keys of ``cfg.MODEL.RSP_HEAD``."""
    head = cfg.MODEL.RSP_HEAD
    return {
        "channels": head.CHANNELS,
        "num_heads": head.NUM_HEADS,
        "region_size": head.REGION_SIZE,
        "separable": head.SEPARABLE,
        "compile": head.COMPILE,
        "norm": head.NORM,
    }


def propagate(
    laterals: nn.ModuleDict, propagators: nn.ModuleDict, features: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Hand context down: X_top = P_top; X_l = RSP(P_l, X_{l+1}).

    Args:
        laterals, propagators: of :func:`build_stack`.
        features: C_l by name; P_l = lateral(C_l).

    Returns:
        X_l of every level, by name, the highest first.
    """
    outputs: dict[str, torch.Tensor] = {}
    higher = None
    for name in reversed([*laterals]):
        low = laterals[name](features[name])
        higher = low if higher is None else propagators[name](low, higher)
        outputs[name] = higher
    return outputs


def _lateral(in_channels: int, channels: int, norm: str) -> nn.Module:
    if in_channels == channels:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, channels, 1, bias=norm == "")
    return ConvNorm(conv, get_norm(norm, channels))
