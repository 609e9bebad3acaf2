"""Whether an exported model says what the model says."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

__all__ = ["compare_outputs", "require_agreement"]

MIN_AGREEMENT = 0.9999  # of the labels
MAX_ERROR = 1e-3  # of the logits, relative to their largest


def compare_outputs(
    model: nn.Module, exported: Callable, images: Iterable[np.ndarray]
) -> dict[str, float]:
    """Detectron2's model in eager mode beside the exported one, on the same images.

    Args:
        model: a SemanticSegmentor in evaluation mode, on the CPU.
        exported: of :func:`~eseg_d2.export.semantic.load_exported`.
        images: each (3, H, W) float32, 0 .. 255.

    Returns:
        "labels": the share of pixels with the same label; "logits", if they are exported: the
        largest difference, relative to the largest logit.
    """
    same = pixels = 0
    error = None
    for image in images:
        height, width = image.shape[-2:]
        with torch.no_grad():
            inputs = {"image": torch.from_numpy(image), "height": height, "width": width}
            expected = model([inputs])[0]["sem_seg"].numpy()
        labels, *logits = exported(image[None])
        same += (labels[0] == expected.argmax(0)).sum()
        pixels += labels.size
        if logits:
            relative = np.abs(logits[0][0] - expected).max() / max(np.abs(expected).max(), 1e-6)
            error = max(error or 0.0, float(relative))
    result = {"labels": float(same / pixels)}
    return result if error is None else {**result, "logits": error}


def require_agreement(result: dict[str, float], where: str) -> None:
    """
    Args:
        result: of :func:`compare_outputs`.
        where: the file, for the error.

    Raises:
        ValueError: labels or logits differ by more than rounding.
    """
    if result["labels"] < MIN_AGREEMENT or result.get("logits", 0.0) > MAX_ERROR:
        raise ValueError(
            f"{where} does not say what the model says: {result['labels']:.4%} of the labels agree "
            f"(expected {MIN_AGREEMENT:.2%}), logits differ by {result.get('logits', 0.0):.1e} of "
            f"the largest (expected at most {MAX_ERROR:.0e}). Do not use it; please report this."
        )
