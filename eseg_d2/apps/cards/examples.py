"""What a model scores on the few images of ``demo/images``, whatever it was trained on."""

from pathlib import Path

import numpy as np

from eseg_d2 import Predictor
from eseg_d2.data.panoptic_png import read_panoptic_png
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
    names = {category["id"]: category["name"] for category in content["categories"]}
    ids = {name: index for index, name in enumerate(predictor.classes.names)}
    count = len(ids)
    confusion = np.zeros((count, count + 1), np.int64)  # the last column: no class
    for image, annotation in _pairs(content):
        truth = _labels(folder / "truth" / annotation["file_name"], annotation, names, ids)
        labels = np.minimum(predictor(folder / image["file_name"]).label_map(), count)
        known = truth != IGNORED
        cells = truth[known].astype(np.int64) * (count + 1) + labels[known]
        confusion += np.bincount(cells, minlength=confusion.size).reshape(confusion.shape)
    right = confusion.diagonal()
    union = confusion.sum(1) + confusion[:, :count].sum(0) - right
    present = confusion.sum(1) > 0
    return {
        "mIoU": float(100 * (right[present] / union[present]).mean()),
        "pixel_accuracy": float(100 * right.sum() / confusion.sum()),
    }


def _pairs(content: dict) -> list[tuple[dict, dict]]:
    annotations = {annotation["image_id"]: annotation for annotation in content["annotations"]}
    return [(image, annotations[image["id"]]) for image in content["images"]]


def _labels(path: Path, annotation: dict, names: dict, ids: dict) -> np.ndarray:
    """Class ids of the model for each pixel of the truth."""
    segments = read_panoptic_png(str(path))
    labels = np.full(segments.shape, IGNORED, np.uint8)
    for segment in annotation["segments_info"]:
        name = names[segment["category_id"]]
        labels[segments == segment["id"]] = ids.get(name, IGNORED)
    return labels
