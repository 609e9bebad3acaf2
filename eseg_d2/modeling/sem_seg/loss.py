"""The per-pixel loss that the semantic heads share."""

from functools import partial

import torch
import torch.nn.functional as F

from eseg_d2.layers.resize import resize_bilinear

__all__ = ["LOSS_TYPES", "pixel_cross_entropy"]

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
