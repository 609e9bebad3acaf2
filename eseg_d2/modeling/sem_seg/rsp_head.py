"""The RSP head: a semantic head of stacked RSPs."""

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from eseg_d2.layers.rsp import build_stack, propagate, stack_arguments
from eseg_d2.modeling.sem_seg.head import SemanticHead

__all__ = ["RSPHead"]


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
                consecutive powers of two. With a single level, as on an RSP pyramid, which has
                handed its context down already, only the 1x1 to classes is left.
            num_classes: semantic train ids are 0 .. num_classes - 1.
            channels: width of the head.
            num_heads, region_size, compile: of each :class:`RSE`.
            separable: of each :class:`RSP`.
            norm: as in Detectron2's ``get_norm``.
            common: ``loss_type``, ``loss_weight``, ``ignore_value``, ``class_weights``; see
                :class:`~eseg_d2.modeling.sem_seg.head.SemanticHead`.

        Raises:
            ValueError: strides that are not consecutive.
        """
        super().__init__(input_shape, **common)
        self.laterals, self.propagators = build_stack(
            {name: input_shape[name] for name in self.in_features},
            channels=channels,
            num_heads=num_heads,
            region_size=region_size,
            separable=separable,
            compile=compile,
            norm=norm,
        )
        self.predictor = nn.Conv2d(channels, num_classes, 1)

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]):
        return {**cls.common_arguments(cfg, input_shape), **stack_arguments(cfg)}

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits at the lowest level: (B, num_classes, h, w)."""
        levels = propagate(self.laterals, self.propagators, features)
        return self.predictor(levels[self.in_features[0]])
