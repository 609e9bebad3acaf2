"""RSE, RSP and the RSP head: relational context handed down the pyramid, level by level."""

import functools
import importlib.util
import logging
import math
import shutil
from collections.abc import Callable

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from eseg_d2.layers.relation import PixelToRegionRelation
from eseg_d2.layers.separable_conv import ConvNorm, SeparableConv2d
from eseg_d2.modeling.sem_seg.head import SemanticHead

__all__ = ["RSE", "RSP", "RSPHead", "compiled_relation"]

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


@SEM_SEG_HEADS_REGISTRY.register()
class RSPHead(SemanticHead):
    """Semantic head of stacked RSPs (RSP paper: a progressive top-down distribution of context).

    X_top = P_top; X_l = RSP(P_l, X_{l+1}) down to the lowest level; 1x1 to classes; bilinear to
    the image. The stacking is the paper's, its details are our choice. Levels whose width is not
    that of the head first pass a 1x1 and a norm (our choice).
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        channels: int = 128,
        num_heads: int = 8,
        region_size: int = 3,
        separable: bool = False,
        compile: bool = False,
        norm: str = "BN",
        **common,
    ):
        """
        Args:
            input_shape: the levels, by name, with ``channels`` and ``stride``; strides must be
                consecutive powers of two.
            num_classes: semantic train ids are 0 .. num_classes - 1.
            channels: width of the head.
            num_heads, region_size, compile: of each :class:`RSE`.
            separable: of each :class:`RSP`.
            norm: as in Detectron2's ``get_norm``.
            common: ``loss_type``, ``loss_weight``, ``ignore_value``, ``class_weights``; see
                :class:`~eseg_d2.modeling.sem_seg.head.SemanticHead`.

        Raises:
            ValueError: fewer than two levels, or strides that are not consecutive.
        """
        super().__init__(input_shape, **common)
        levels = [(name, input_shape[name]) for name in self.in_features]
        _check_levels(levels)
        self.laterals = nn.ModuleDict(
            {name: _lateral(shape.channels, channels, norm) for name, shape in levels}
        )
        self.propagators = nn.ModuleDict()
        for name in self.in_features[:-1]:
            rse = RSE(channels, num_heads=num_heads, region_size=region_size, compile=compile)
            self.propagators[name] = RSP(rse, channels=channels, separable=separable, norm=norm)
        self.predictor = nn.Conv2d(channels, num_classes, 1)

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        head = cfg.MODEL.RSP_HEAD
        return {
            **cls.common_arguments(cfg, input_shape),
            "channels": head.CHANNELS,
            "num_heads": head.NUM_HEADS,
            "region_size": head.REGION_SIZE,
            "separable": head.SEPARABLE,
            "compile": head.COMPILE,
            "norm": head.NORM,
        }

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits at the lowest level: (B, num_classes, h, w)."""
        return self.predictor(self.propagate(features)[self.in_features[0]])

    def propagate(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """X_l of every level, by name, from the top down."""
        top = self.in_features[-1]
        outputs = {top: self.laterals[top](features[top])}
        higher = top
        for name in reversed(self.in_features[:-1]):
            low = self.laterals[name](features[name])
            outputs[name] = self.propagators[name](low, outputs[higher])
            higher = name
        return outputs

    def relation_weights(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """For inspection: each level's relation weights, (B, heads, k * k, h, w), by name."""
        outputs = self.propagate(features)
        return {
            low: self.propagators[low].rse.relation_weights(  # type: ignore[union-attr, operator]
                self.laterals[low](features[low]), outputs[high]
            )
            for low, high in zip(self.in_features[:-1], self.in_features[1:], strict=True)
        }


def _check_levels(levels: list[tuple[str, ShapeSpec]]) -> None:
    strides = [shape.stride for _, shape in levels]
    expected = [strides[0] * 2**i for i in range(len(strides))]
    if len(levels) < 2 or strides != expected or math.log2(strides[0]) % 1:
        names = {name: shape.stride for name, shape in levels}
        raise ValueError(
            f"RSPHead got the levels (name: stride) {names}; expected two or more whose strides "
            "are consecutive powers of two, such as p3, p4, p5. Set MODEL.SEM_SEG_HEAD.IN_FEATURES"
        )


def _lateral(in_channels: int, channels: int, norm: str) -> nn.Module:
    if in_channels == channels:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, channels, 1, bias=norm == "")
    return ConvNorm(conv, get_norm(norm, channels))
