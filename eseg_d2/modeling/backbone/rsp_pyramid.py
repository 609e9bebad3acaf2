"""RSP as a feature pyramid: what hands context down for the semantic head serves the boxes, too."""

import math

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor

from eseg_d2.layers.rsp import build_stack, propagate, stack_arguments
from eseg_d2.modeling.backbone.pyramid import Pyramid, build_bottom_up

__all__ = ["RSPPyramid", "build_rsp_backbone"]


class RSPPyramid(Pyramid):
    """A pyramid whose top-down path is RSP: X_top = P_top; X_l = RSP(P_l, X_{l+1}).

    P_l is the bottom-up's feature of stride 2**l, by a 1x1 and a norm brought to the pyramid's
    width. It takes the place of FPN, whose top-down path is an upsampling and a sum, and X_l that
    of its level l. Our choice: the paper has RSP in a semantic head only; on this pyramid that
    head is a 1x1 convolution, and boxes and masks see the same context (docs/design.md).

    As FPN, it adds one level above the highest by subsampling, for the proposals.
    ``size_divisibility`` is the bottom-up's own, or the stride of its last feature (Detectron2's
    ResNets state 0), for heads that upsample by exactly 2.

    Shape:
        image (N, C, H, W) to {"p2": float (N, channels, ceil(H / 4), ceil(W / 4)), ...}, level l
        with the size of the bottom-up's feature of stride 2**l.
    """

    def __init__(self, bottom_up: Backbone, in_features: list[str], *, channels: int, **options):
        """
        Args:
            bottom_up: any backbone that gives ``in_features``, a pyramid included.
            in_features: names of two or more of its features, in any order; their strides are
                consecutive powers of two.
            channels: width of every level.
            **options: the others of :func:`~eseg_d2.layers.rsp.build_stack`.

        Raises:
            ValueError: ``in_features`` are fewer than two, not features of the bottom-up, or of
                strides that are not consecutive.
        """
        shapes = bottom_up.output_shape()
        if len(in_features) < 2 or not set(in_features) <= set(shapes):
            raise ValueError(
                f"MODEL.RSP_PYRAMID.IN_FEATURES is {list(in_features)}; expected two or more of "
                f"those that the bottom-up gives: {[*shapes]}"
            )
        levels = {n: shapes[n] for n in sorted(in_features, key=lambda n: shapes[n].stride)}
        laterals, propagators = build_stack(levels, channels=channels, **options)
        strides = [shape.stride for shape in levels.values()]
        super().__init__(
            bottom_up,
            min_level=int(math.log2(strides[0])),
            max_level=int(math.log2(strides[-1])) + 1,
            channels=channels,
            size_divisibility=bottom_up.size_divisibility or strides[-1],
        )
        self.in_features = [*levels]
        self.laterals, self.propagators = laterals, propagators
        self.top_block = LastLevelMaxPool()
        self.common_stride = strides[0]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels = propagate(self.laterals, self.propagators, self.bottom_up(x))
        features = [levels[name] for name in self.in_features]
        features += self.top_block(features[-1])
        return dict(zip(self._out_features, features, strict=True))


@BACKBONE_REGISTRY.register()
def build_rsp_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> RSPPyramid:
    """Build an :class:`RSPPyramid` and its bottom-up from ``cfg.MODEL.RSP_PYRAMID`` and RSP_HEAD.

    Args:
        cfg: a Detectron2 config with our keys.
        input_shape: shape of the image, handed to the bottom-up's builder.

    Raises:
        ValueError: BOTTOM_UP is not registered; and see :class:`RSPPyramid`.
    """
    bottom_up = build_bottom_up(
        cfg,
        input_shape,
        node="RSP_PYRAMID",
        pyramid="build_rsp_backbone",
        expected="another backbone",
    )
    return RSPPyramid(bottom_up, cfg.MODEL.RSP_PYRAMID.IN_FEATURES, **stack_arguments(cfg))
