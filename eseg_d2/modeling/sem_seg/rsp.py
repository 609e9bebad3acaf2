"""RSE and RSP: extract context from the next higher level, and hand it down."""

import functools
import importlib.util
import logging
import shutil
from collections.abc import Callable

import torch
from detectron2.layers import get_norm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from eseg_d2.layers.relation import PixelToRegionRelation
from eseg_d2.layers.separable_conv import ConvNorm
from eseg_d2.utils.arguments import check_choice

__all__ = ["RSE", "RSP", "compiled_relation"]

logger = logging.getLogger(__name__)

_COMPILERS = ("gcc", "clang", "cc")  # any one that Triton finds
FUSIONS = ("sum", "concat")
OUTPUT_CONVS = ("conv3x3", "separable", "conv1x1")


class RSE(nn.Module):
    """Relational Semantics Extractor (RSP paper, abstract and introduction).

    A pixel of the lower level takes context from a k x k region of the adjacent higher level by
    a learned cross-scale relation. The paper's text that we could read does not say how query,
    key and value are made; we use 1x1 convolutions, the query from the lower level, key and
    value from the higher one (our choice).
    """

    def __init__(
        self,
        *,
        low_channels: int,
        high_channels: int,
        channels: int,
        num_heads: int = 8,
        region_size: int = 3,
        similarity: str = "dot_product",
        position: str = "row_column",
        compile: bool = False,
    ):
        """
        Args:
            low_channels, high_channels: widths of the two levels.
            channels: width of the value, and so of the context; that of query and key is the
                same for ``"dot_product"`` and ``num_heads`` for ``"squared_difference"``.
            num_heads, region_size, similarity, position: see
                :class:`~eseg_d2.layers.relation.PixelToRegionRelation`.
            compile: run the relation compiled on a GPU, if there is what torch.compile needs.
        """
        super().__init__()
        self.compile_on_gpu = compile
        key_channels = num_heads if similarity == "squared_difference" else channels
        self.query = nn.Conv2d(low_channels, key_channels, 1)
        # no bias: in a dot product the softmax cancels it, in a difference it is the query's
        self.key = nn.Conv2d(high_channels, key_channels, 1, bias=False)
        self.value = nn.Conv2d(high_channels, channels, 1)
        self.relation = PixelToRegionRelation(
            key_channels,
            num_heads=num_heads,
            region_size=region_size,
            similarity=similarity,
            position=position,
        )

    def forward(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """
        Args:
            low: (B, low_channels, H, W), level l.
            high: (B, high_channels, ceil(H / 2), ceil(W / 2)), level l + 1.

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
    """Relational Semantics Propagator: adds the context of an RSE to the lower level.

    ``conv3x3-norm-ReLU(P_l + norm(context))``. That RSP is built on RSE is the paper's; the
    formula is our choice, with a concatenation and lighter convolutions for ablation.
    """

    def __init__(
        self,
        rse: RSE,
        *,
        low_channels: int,
        channels: int,
        fusion: str = "sum",
        output_conv: str = "conv3x3",
        norm: str = "BN",
    ):
        """
        Args:
            rse: gives a context of ``channels`` channels. If the norm is a batch norm, the bias of
                its value is taken out: the relation's weights sum to 1, so that it would only
                shift the context, which the norm undoes.
            low_channels: width of the lower level; with ``"sum"`` it must be ``channels``.
            channels: width of the context and of the output.
            fusion: ``"sum"`` or ``"concat"``.
            output_conv: ``"conv3x3"``, ``"separable"`` or ``"conv1x1"``.
            norm: as in Detectron2's ``get_norm``.

        Raises:
            ValueError: an unknown choice, or widths that cannot be added.
        """
        super().__init__()
        check_choice("MODEL.RSP_HEAD.FUSION", fusion, FUSIONS)
        check_choice("MODEL.RSP_HEAD.OUTPUT_CONV", output_conv, OUTPUT_CONVS)
        if fusion == "sum" and low_channels != channels:
            raise ValueError(
                f"RSP with fusion 'sum' adds {low_channels} and {channels} channels: "
                "make the widths equal or use fusion 'concat'"
            )
        self.rse = rse
        self.fusion = fusion
        self.context_norm = ConvNorm(nn.Identity(), get_norm(norm, channels))
        if isinstance(self.context_norm.norm, _BatchNorm):
            rse.value.bias = None
        in_channels = channels if fusion == "sum" else low_channels + channels
        self.output = _output_conv(output_conv, in_channels, channels, norm)

    def forward(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """
        Args:
            low: (B, low_channels, H, W), level l.
            high: (B, high_channels, ceil(H / 2), ceil(W / 2)), level l + 1.

        Returns:
            (B, channels, H, W): X_l.
        """
        context = self.context_norm(self.rse(low, high))
        fused = low + context if self.fusion == "sum" else torch.cat([low, context], dim=1)
        return self.output(fused)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Take weights of earlier versions, too: biases that cancel go into what cancels them."""
        is_difference = self.rse.relation.similarity == "squared_difference"
        homes = {"rse.key.bias": "rse.query.bias" if is_difference else None}
        if self.rse.value.bias is None:
            homes["rse.value.bias"] = "context_norm.norm.running_mean"
        for bias, home in homes.items():
            shift = state_dict.pop(prefix + bias, None)
            if shift is not None and home:
                state_dict[prefix + home] = state_dict[prefix + home] - shift
        super()._load_from_state_dict(state_dict, prefix, *args)


def _output_conv(kind: str, in_channels: int, channels: int, norm: str) -> nn.Sequential:
    bias = norm == ""
    if kind == "separable":
        depthwise = nn.Conv2d(in_channels, in_channels, 3, 1, 1, groups=in_channels, bias=False)
        conv = nn.Sequential(depthwise, nn.Conv2d(in_channels, channels, 1, bias=bias))
    else:
        size = 3 if kind == "conv3x3" else 1
        conv = nn.Conv2d(in_channels, channels, size, 1, size // 2, bias=bias)
    return nn.Sequential(ConvNorm(conv, get_norm(norm, channels)), nn.ReLU(inplace=True))
