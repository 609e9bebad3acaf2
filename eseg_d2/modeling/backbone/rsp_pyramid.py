"""RSP as a feature pyramid: what hands context down for the semantic head serves the boxes, too."""

import math

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor

from eseg_d2.layers.rsp import build_stack, propagate, stack_arguments

__all__ = ["RSPPyramid", "build_rsp_backbone"]


class RSPPyramid(Backbone):
    """A pyramid whose top-down path is RSP: X_top = P_top; X_l = RSP(P_l, X_{l+1}).

    P_l is the bottom-up's feature of stride 2**l, by a 1x1 and a norm brought to the pyramid's
    width. It takes the place of FPN, whose top-down path is an upsampling and a sum, and X_l that
    of its level l. Our choice: the paper has RSP in a semantic head only; on this pyramid that
    head is a 1x1 convolution, and boxes and masks see the same context (docs/design.md).

    As FPN, it adds one level above the highest by subsampling, for the proposals.

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
        super().__init__()
        shapes = bottom_up.output_shape()
        if len(in_features) < 2 or not set(in_features) <= set(shapes):
            raise ValueError(
                f"MODEL.RSP_PYRAMID.IN_FEATURES is {list(in_features)}; expected two or more of "
                f"those that the bottom-up gives: {[*shapes]}"
            )
        self.bottom_up = bottom_up
        self.in_features = sorted(in_features, key=lambda name: shapes[name].stride)
        levels = {name: shapes[name] for name in self.in_features}
        self.laterals, self.propagators = build_stack(levels, channels=channels, **options)
        self.top_block = LastLevelMaxPool()
        self.common_stride = levels[self.in_features[0]].stride
        lowest = int(math.log2(self.common_stride))
        # What the base class makes output_shape() from.
        self._out_features = [f"p{lowest + i}" for i in range(len(levels) + 1)]
        self._out_feature_strides = {
            name: self.common_stride * 2**i for i, name in enumerate(self._out_features)
        }
        self._out_feature_channels = dict.fromkeys(self._out_features, channels)

    @property
    def size_divisibility(self) -> int:
        """Multiple, in pixels, that Detectron2 pads a batch to: the bottom-up's own, or the stride
        of its last feature (Detectron2's ResNets state 0), for heads that upsample by exactly 2."""
        own = self._out_feature_strides[self._out_features[-2]]
        return self.bottom_up.size_divisibility or own

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The bottom-up's own (newer Detectron2), empty where it has none."""
        return getattr(self.bottom_up, "padding_constraints", {})

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
    pyramid = cfg.MODEL.RSP_PYRAMID
    if pyramid.BOTTOM_UP not in BACKBONE_REGISTRY or pyramid.BOTTOM_UP == "build_rsp_backbone":
        raise ValueError(
            f"MODEL.RSP_PYRAMID.BOTTOM_UP is {pyramid.BOTTOM_UP!r}; expected the registered name "
            f"of another backbone, one of {sorted(name for name, _ in BACKBONE_REGISTRY)}"
        )
    bottom_up = BACKBONE_REGISTRY.get(pyramid.BOTTOM_UP)(cfg, input_shape)
    return RSPPyramid(bottom_up, pyramid.IN_FEATURES, **stack_arguments(cfg))
