"""What our semantic heads share: levels, the per-pixel loss, logits at the image's size."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.projects.deeplab import DeepLabV3Head
from torch import nn

from eseg_d2.layers.resample import resize_bilinear
from eseg_d2.utils.errors import check_choice

__all__ = [
    "LOSS_TYPES",
    "SemanticHead",
    "logits_at_stride",
    "logits_stride",
    "pixel_cross_entropy",
    "upsample_logits",
]

LOSS_TYPES = ("cross_entropy", "hard_pixel_mining")
HARD_SHARE = 0.2  # of all pixels, as in Detectron2's DeepLab project


def pixel_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    ignore_value: int,
    loss_type: str,
    pixel_count: float | None = None,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean cross entropy in fp32 of logits that are brought to the targets' size (bilinear).

    Finite and connected to the graph also if no pixel counts: then it is zero.

    Args:
        logits: (B, num_classes, h, w).
        targets: (B, H, W) int64 train ids, 0 .. num_classes - 1.
        ignore_value: target pixels of this value do not count.
        loss_type: "cross_entropy", the mean over the pixels that count; or "hard_pixel_mining",
            over those of the highest loss, at most a fifth of all pixels (DeeperLab, 1902.05093,
            as Detectron2's ``DeepLabCE``; there ignored pixels fill up the fifth as zeros, here
            they do not). The hardest are those of this call: those of a batch in several parts are
            not known before all of its parts are computed.
        pixel_count: what the sum of "cross_entropy" is divided by; None: the pixels that count.
        class_weights: (num_classes,) factors of the pixels' losses, by their true class. The sum is
            still divided by a number of pixels, so that 1 leaves a pixel's loss as it is.

    Returns:
        A scalar.
    """
    logits = resize_bilinear(logits.float(), targets.shape[-2:])
    counted = (targets != ignore_value).sum()
    cross_entropy = partial(F.cross_entropy, weight=class_weights, ignore_index=ignore_value)
    if loss_type == "cross_entropy":
        total = cross_entropy(logits, targets, reduction="sum")
        if pixel_count is not None:
            return total / max(pixel_count, 1)
    else:
        losses = cross_entropy(logits, targets, reduction="none")
        hardest = max(int(HARD_SHARE * losses.numel()), 1)
        total = losses.flatten().topk(hardest).values.sum()
        counted = counted.clamp(max=hardest)
    return total / counted.clamp(min=1)


def logits_at_stride(head: Any, features: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of a semantic head before it upsamples them, if it lets us have them.

    Args:
        head: in evaluation mode. Ours and Detectron2's give the logits at their ``common_stride``;
            of others, which have no method ``layers``, the upsampled logits are taken.
        features: the backbone's.
    """
    if isinstance(head, DeepLabV3Head):
        return head.predictor(head.aspp(features[head.in_features[0]]))
    return head.layers(features) if hasattr(head, "layers") else head(features, None)[0]


def logits_stride(head: Any) -> int:
    """Return the pixels of the image for each cell of what :func:`logits_at_stride` returns."""
    known = isinstance(head, DeepLabV3Head) or hasattr(head, "layers")
    return head.common_stride if known else 1


def upsample_logits(head: Any, logits: torch.Tensor) -> torch.Tensor:
    """Upsample (B, C, h, w) logits of :func:`logits_at_stride` as Detectron2's heads do."""
    return F.interpolate(
        logits, scale_factor=logits_stride(head), mode="bilinear", align_corners=False
    )


class SemanticHead(nn.Module):
    """A head that classifies the pixels of the lowest level; ``layers`` says how.

    Attributes:
        in_features: names of the levels, from the lowest up.
        common_stride: of the lowest level, in pixels.
        pixel_count: what a trainer may set before each step: pixels that are not ignored, the mean
            over the parts of a batch (processes, accumulated steps). Then the mean of the parts'
            losses is the loss of the whole batch, though ignored pixels are spread unevenly. None:
            each part counts its own.
    """

    pixel_count: float | None = None
    class_weights: torch.Tensor | None

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        loss_type: str = "cross_entropy",
        loss_weight: float = 1.0,
        ignore_value: int = 255,
        class_weights: Sequence[float] = (),
    ):
        """
        Args:
            input_shape: the levels, by name, with ``channels`` and ``stride``.
            loss_type: "cross_entropy" or "hard_pixel_mining"; see
                :func:`~eseg_d2.modeling.sem_seg.head.pixel_cross_entropy`.
            loss_weight: factor of the loss.
            ignore_value: target pixels of this value take no part.
            class_weights: factors of the pixels' losses by train id; empty: 1 for all.

        Raises:
            ValueError: an unknown ``loss_type``, no level, or a weight that is negative.
        """
        super().__init__()
        check_choice("MODEL.SEM_SEG_HEAD.LOSS_TYPE", loss_type, LOSS_TYPES)
        if not input_shape:
            raise ValueError("MODEL.SEM_SEG_HEAD.IN_FEATURES is empty; expected one or more levels")
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride)
        self.common_stride = input_shape[self.in_features[0]].stride
        self.loss_type = loss_type
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value
        if not all(0 <= weight < float("inf") for weight in class_weights):
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS is {tuple(class_weights)}; expected numbers of "
                "0 or more"
            )
        weights = torch.tensor(class_weights, dtype=torch.float32) if class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    @staticmethod
    def common_arguments(cfg, input_shape: dict[str, ShapeSpec]) -> dict:
        """The arguments of every head from ``cfg.MODEL.SEM_SEG_HEAD``.

        Args:
            cfg: a Detectron2 config with our keys.
            input_shape: what the backbone gives.

        Raises:
            ValueError: IN_FEATURES names what the backbone does not give, or CLASS_WEIGHTS are
                more or fewer than the classes.
        """
        num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        weights = cfg.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS
        if len(weights) not in (0, num_classes):
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS has {len(weights)} numbers; expected one for "
                f"each of the {num_classes} classes, or none"
            )
        names = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES
        missing = [name for name in names if name not in input_shape]
        if missing:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES names {missing}, but the backbone gives "
                f"{list(input_shape)}"
            )
        return {
            "input_shape": {name: input_shape[name] for name in names},
            "num_classes": num_classes,
            "loss_type": cfg.MODEL.SEM_SEG_HEAD.LOSS_TYPE,
            "loss_weight": cfg.MODEL.SEM_SEG_HEAD.LOSS_WEIGHT,
            "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "class_weights": weights,
        }

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits at the lowest level: (B, num_classes, h, w)."""
        raise NotImplementedError

    def forward(self, features: dict[str, torch.Tensor], targets: torch.Tensor | None = None):
        """
        Args:
            features: the levels, by name; each (B, C, ceil(H / stride), ceil(W / stride)).
            targets: (B, H, W) int64 semantic train ids, or None in inference.

        Returns:
            ``(None, {"loss_sem_seg": scalar})`` in training, else ``(logits, {})`` with logits
            (B, num_classes, H, W), H and W being the lowest level's size times its stride.
        """
        logits = self.layers(features)
        if self.training:
            assert targets is not None
            return None, self.losses(logits, targets)
        return upsample_logits(self, logits), {}

    def losses(self, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            logits: (B, num_classes, h, w), at the lowest level.
            targets: (B, H, W) int64.

        Returns:
            ``{"loss_sem_seg": scalar}``, in fp32.
        """
        loss = pixel_cross_entropy(
            logits,
            targets,
            ignore_value=self.ignore_value,
            loss_type=self.loss_type,
            pixel_count=self.pixel_count,
            class_weights=self.class_weights,
        )
        return {"loss_sem_seg": loss * self.loss_weight}
