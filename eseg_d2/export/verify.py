"""Verify that an exported model agrees with the model in eager mode."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.evaluation.semantic import count_labels, iou_results
from eseg_d2.export.merge import merge_panoptic

__all__ = [
    "compare_labels",
    "compare_outputs",
    "compare_panoptic",
    "label_agreement",
    "require_agreement",
]

MIN_AGREEMENT = 0.9999  # share of equal labels, or of equal pixels in panoptic maps
MAX_ERROR = 1e-3  # difference of the logits, relative to the largest


def compare_outputs(
    model: nn.Module, exported: Callable, images: Iterable[np.ndarray]
) -> dict[str, float]:
    """Compare an exported semantic model with the model in eager mode on the same images.

    Args:
        model: a SemanticSegmentor in evaluation mode, on the CPU.
        exported: function from :func:`~eseg_d2.export.formats.load_exported`.
        images: each (3, H, W) float32, 0 .. 255.

    Returns:
        "labels", the share of pixels with the same label; and "logits", if they are exported, the
        largest difference relative to the largest logit.
    """
    same = pixels = 0
    error = None
    for image in images:
        expected = _predict(model, image)["sem_seg"].numpy()
        labels, *logits = exported(image[None])
        same += (labels[0] == expected.argmax(0)).sum()
        pixels += labels.size
        if logits:
            relative = np.abs(logits[0][0] - expected).max() / max(np.abs(expected).max(), 1e-6)
            error = max(error or 0.0, float(relative))
    result = {"labels": float(same / pixels)}
    return result if error is None else {**result, "logits": error}


def _predict(model: nn.Module, image: np.ndarray) -> dict:
    height, width = image.shape[-2:]
    with torch.no_grad():
        return model([{"image": torch.from_numpy(image), "height": height, "width": width}])[0]


def compare_panoptic(
    model: nn.Module,
    exported: Callable,
    output_names: list[str],
    settings: dict,
    images: Iterable[np.ndarray],
) -> dict[str, float]:
    """Compare the panoptic maps of an exported model with those of the model in eager mode.

    Args:
        model: a PanopticRCNN in evaluation mode, on the CPU.
        exported: function from :func:`~eseg_d2.export.formats.load_exported`.
        output_names: names of its outputs.
        settings: settings from :func:`~eseg_d2.export.graphs.merge_settings`.
        images: each (3, H, W) float32, 0 .. 255.

    Returns:
        "labels", the share of pixels with the same segment (its place in the list) and category;
        and "instances", the number of things that the model found in all images.
    """
    same = pixels = instances = 0
    for image in images:
        expected, expected_segments = _predict(model, image)["panoptic_seg"]
        raw = dict(zip(output_names, exported(image[None]), strict=True))
        panoptic, segments = merge_panoptic(raw, settings)
        categories = [[-1] + [s["category_id"] for s in x] for x in (segments, expected_segments)]
        expected = expected.numpy()
        equal = np.array(categories[0])[panoptic] == np.array(categories[1])[expected]
        same += (equal & (panoptic == expected)).sum()
        pixels += panoptic.size
        instances += sum(s["isthing"] for s in expected_segments)
    return {"labels": float(same / pixels), "instances": instances}


def label_agreement(
    run: Callable, images: Sequence[np.ndarray], labels: Sequence[np.ndarray]
) -> float:
    """Return the share of pixels, 0 .. 1, to which an exported semantic model gives these labels.

    Args:
        run: function from :func:`~eseg_d2.export.formats.load_exported`.
        images, labels: (3, H, W) float32, 0 .. 255; and (H, W) integers for each.
    """
    same = [run(image[None])[0][0] == of for image, of in zip(images, labels, strict=True)]
    return float(sum(x.sum() for x in same) / sum(x.size for x in same))


def compare_labels(
    runs: dict[str, Callable], truth: GroundTruth, load: Callable[[str], np.ndarray]
) -> dict[str, float]:
    """Compare exported semantic models with the ground truth, and the last one with the first.

    Args:
        runs: functions from :func:`~eseg_d2.export.formats.load_exported` by name.
        truth: ground truth of a data set; all of its images are used.
        load: maps a file's name to the image, (3, H, W) float32, 0 .. 255. The labels are resized
            to the size of the truth (nearest neighbour).

    Returns:
        The mIoU of each by name, in percent; and "labels", the share of pixels with the same label
        in the first and the last.
    """
    names = truth.label_space.semantic_names
    confusion = {name: np.zeros((len(names), len(names)), np.int64) for name in runs}
    same = pixels = 0
    for file in tqdm(truth.records, desc="validating", unit="image"):
        image, target = load(file), truth.semantic_map(file)
        labels = [run(image[None])[0][0] for run in runs.values()]
        same += (labels[0] == labels[-1]).sum()
        pixels += labels[0].size
        for counts, of_run in zip(confusion.values(), labels, strict=True):
            picture = Image.fromarray(of_run.astype(np.int32))
            predicted = np.asarray(picture.resize(target.shape[::-1], Image.Resampling.NEAREST))
            counts += count_labels(target, predicted, truth.label_space)
    results = {name: iou_results(counts, names)["mIoU"] for name, counts in confusion.items()}
    return {**results, "labels": float(same / pixels)}


def require_agreement(result: dict[str, float], where: str) -> None:
    """Check a result of :func:`compare_outputs` or :func:`compare_panoptic`.

    Raises:
        ValueError: labels or logits differ by more than rounding; the message names the file.
    """
    if result["labels"] < MIN_AGREEMENT or result.get("logits", 0.0) > MAX_ERROR:
        raise ValueError(
            f"{where} does not agree with the model: {result['labels']:.4%} of the labels agree "
            f"(expected {MIN_AGREEMENT:.2%}), logits differ by {result.get('logits', 0.0):.1e} of "
            f"the largest (expected at most {MAX_ERROR:.0e}). Do not use it; please report this."
        )
