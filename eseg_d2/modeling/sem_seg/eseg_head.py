"""The ESeg head: all levels brought to the lowest one, weighed, and classified."""

from functools import partial

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from eseg_d2.layers.fusion import WeightedFusion, make_activation
from eseg_d2.layers.resample import scale_map
from eseg_d2.layers.separable_conv import ConvNorm, SeparableConv2d
from eseg_d2.modeling.sem_seg.head import SemanticHead

__all__ = ["ESegHead"]


@SEM_SEG_HEADS_REGISTRY.register()
class ESegHead(SemanticHead):
    """Semantic head of ESeg (arXiv 2203.12683); the pyramid has done the work before it.

    Every level is resized (bilinear) to the lowest one; a learned weighted sum, one separable 3x3
    convolution with norm and activation, a 1x1 to classes, bilinear to the image. The paper's text
    that we could read does not give the head's details: they are our choice.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        activation: str = "swish",
        norm: str = "BN",
        **common,
    ):
        """
        Args:
            input_shape: the levels, by name, with ``channels`` (the same for all) and ``stride``.
            num_classes: semantic train ids are 0 .. num_classes - 1.
            activation: "swish" or "relu".
            norm: as in Detectron2's ``get_norm``.
            common: ``loss_type``, ``loss_weight``, ``ignore_value``, ``class_weights``; see
                :class:`~eseg_d2.modeling.sem_seg.head.SemanticHead`.

        Raises:
            ValueError: no level, levels of different widths, or an unknown choice.
        """
        super().__init__(input_shape, **common)
        widths = {name: input_shape[name].channels for name in self.in_features}
        if len(set(widths.values())) != 1:
            raise ValueError(
                f"ESegHead got the levels (name: channels) {widths}; expected one width: put a "
                "pyramid (MODEL.BACKBONE.NAME build_bifpn_backbone or an FPN) before it"
            )
        channels = widths[self.in_features[0]]
        self.fuse = WeightedFusion(len(widths))
        self.conv = ConvNorm(SeparableConv2d(channels, channels), get_norm(norm, channels))
        self.activation = make_activation(activation)
        self.predictor = nn.Conv2d(channels, num_classes, 1)

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        return {
            **cls.common_arguments(cfg, input_shape),
            "activation": cfg.MODEL.ESEG_HEAD.ACTIVATION,
            "norm": cfg.MODEL.ESEG_HEAD.NORM,
        }

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits at the lowest level: (B, num_classes, h, w)."""
        lowest, *higher = (features[name] for name in self.in_features)
        size = lowest.shape[-2:]
        maps = [partial(scale_map, lowest), *(partial(_enlarge, x, size) for x in higher)]
        return self.predictor(self.activation(self.conv(self.fuse.combine(maps))))


def _enlarge(x: torch.Tensor, size, factor) -> torch.Tensor:
    """Resize (bilinear), and multiply before that, where the map is small: resizing is linear."""
    return F.interpolate(scale_map(x, factor), size, mode="bilinear", align_corners=False)
