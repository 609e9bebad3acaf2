"""What a model scores on the few images of ``demo/images``, whatever it was trained on."""

from pathlib import Path

import numpy as np

from eseg_d2 import Predictor
from eseg_d2.data.panoptic_png import read_panoptic_png, segment_index
from eseg_d2.evaluation.semantic import iou_results
from eseg_d2.utils.json_yaml import read_json

__all__ = ["example_metrics"]

IGNORED = 255


def example_metrics(predictor: Predictor, folder: Path) -> dict[str, float]:
    """Return the mean IoU and the share of right pixels, in percent, over classes known to both.

    Classes are matched by their names, so that a model of another data set can be scored, too.
    Pixels whose true class the model does not know are left out.

    Args:
        predictor: of a semantic or panoptic model.
        folder: with images, and ``truth/`` of the COCO panoptic format: ``panoptic.json`` and pngs.

    Returns:
        ``{"mIoU", "pixel_accuracy"}``.
    """
    content = read_json(folder / "truth" / "panoptic.json")
    known = {category["id"]: category["name"] for category in content["categories"]}
    names = list(predictor.classes.names)
    ids = {key: names.index(name) for key, name in known.items() if name in names}
    count = len(names) + 1  # the last one: no class
    confusion = np.zeros((count, count), np.int64)
    for image, annotation in _pairs(content):
        truth = _labels(folder / "truth" / annotation["file_name"], annotation, ids)
        labels = np.minimum(predictor(folder / image["file_name"]).label_map(), count - 1)
        pairs = truth.astype(np.int64) * count + labels
        counts = np.bincount(pairs[truth != IGNORED], minlength=confusion.size)
        confusion += counts.reshape(confusion.shape)
    results = iou_results(confusion, [*names, "no class"])
    present = [name for name in names if not np.isnan(results[f"ACC-{name}"])]
    mean = np.mean([results[f"IoU-{name}"] for name in present])
    return {"mIoU": float(mean), "pixel_accuracy": results["pACC"]}


def _pairs(content: dict) -> list[tuple[dict, dict]]:
    annotations = {annotation["image_id"]: annotation for annotation in content["annotations"]}
    return [(image, annotations[image["id"]]) for image in content["images"]]


def _labels(path: Path, annotation: dict, ids: dict[int, int]) -> np.ndarray:
    """Return the model's class id of each pixel of the truth."""
    segments = annotation["segments_info"]
    classes = [ids.get(segment["category_id"], IGNORED) for segment in segments]
    index = segment_index(read_panoptic_png(str(path)), segments, str(path))
    return np.array([*classes, IGNORED], np.uint8)[index]
