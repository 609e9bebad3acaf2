"""Mean IoU against the semantic map that the panoptic truth implies."""

import logging
import math
import os
from collections.abc import Iterable, Sequence

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.json_yaml import write_json

__all__ = ["SemanticEvaluator", "count_labels", "iou_results"]

logger = logging.getLogger(__name__)


class SemanticEvaluator(DatasetEvaluator):
    """IoU, accuracy and their means (in percent), with the keys of Detectron2's evaluator.

    Detectron2's ``SemSegEvaluator`` wants a semantic png for each image; this one takes the
    panoptic png.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        semantic_classes: str = "all",
        distributed: bool = True,
        output_dir: str | None = None,
    ):
        """
        Args:
            dataset_name: a registered panoptic data set.
            semantic_classes: what the channels of the predictions are; see
                :class:`~eseg_d2.structures.label_space.LabelSpace`.
            distributed: gather the results of all processes.
            output_dir: gets ``sem_seg_confusion.json``, ``{"classes": [name], "pixels":
                [[count]]}``, truth by row and prediction by column.
        """
        self._output_dir = output_dir
        self._truth = GroundTruth(dataset_name, semantic_classes)
        self._distributed = distributed
        self.reset()

    def reset(self) -> None:
        num_semantic = self._truth.label_space.num_semantic
        self._confusion = np.zeros((num_semantic, num_semantic), dtype=np.int64)

    def process(self, inputs: Iterable[dict], outputs: Iterable[dict]) -> None:
        """Take inputs with ``file_name``, outputs with ``sem_seg``, (num_semantic, H, W) logits.

        Raises:
            ValueError: the prediction has another size, or other channels, than the truth.
        """
        num_semantic = len(self._confusion)
        for item, output in zip(inputs, outputs, strict=True):
            logits = output["sem_seg"]
            truth = self._truth.semantic_map(item["file_name"])
            if logits.shape != (num_semantic, *truth.shape):
                raise ValueError(
                    f"the prediction for {item['file_name']} has the shape "
                    f"{tuple(logits.shape)}; expected {(num_semantic, *truth.shape)}"
                )
            prediction = logits.argmax(dim=0).cpu().numpy()
            self._confusion += count_labels(truth, prediction, self._truth.label_space)

    def evaluate(self) -> dict | None:
        """Return ``{"sem_seg": {"mIoU", "fwIoU", "IoU-NAME", "mACC", "pACC", "ACC-NAME"}}``."""
        confusion = self._confusion
        if self._distributed:
            gathered = comm.gather(confusion)
            if not comm.is_main_process():
                return None
            confusion = sum(gathered)
        names = self._truth.label_space.semantic_names
        if self._output_dir:
            os.makedirs(self._output_dir, exist_ok=True)
            path = os.path.join(self._output_dir, "sem_seg_confusion.json")
            write_json(path, {"classes": names, "pixels": confusion.tolist()})
        results = iou_results(confusion, names)
        logger.info("Semantic segmentation:\n" + _tables(results, names))
        return {"sem_seg": results}


def count_labels(truth: np.ndarray, prediction: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Return the (N, N) int64 pixel counts of two (H, W) label maps, the truth's labels by row."""
    valid = truth != space.ignore_label
    pairs = truth[valid] * space.num_semantic + prediction[valid]
    counts = np.bincount(pairs, minlength=space.num_semantic**2)
    return counts.reshape(space.num_semantic, space.num_semantic)


def iou_results(confusion: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Return Detectron2's semantic metrics, in percent; NaN for a class that does not occur.

    Args:
        confusion: (N, N) pixel counts, truth by row and prediction by column.
        names: (N,) class names.

    Returns:
        ``mIoU`` over classes that occur in truth or prediction, ``mACC`` over those in the
        truth, ``fwIoU`` weighted by their pixels, ``pACC`` of all pixels, and each class's.
    """
    hit = np.diag(confusion).astype(float)
    in_truth, in_prediction = confusion.sum(1).astype(float), confusion.sum(0)
    union = in_truth + in_prediction - hit
    with np.errstate(invalid="ignore"):
        iou, accuracy = 100 * hit / union, 100 * hit / in_truth
        total = in_truth.sum()
        return {
            "mIoU": _mean(iou),
            "fwIoU": float(np.nansum(iou * in_truth) / total),
            **{f"IoU-{name}": float(v) for name, v in zip(names, iou, strict=True)},
            "mACC": _mean(accuracy),
            "pACC": float(100 * hit.sum() / total),
            **{f"ACC-{name}": float(v) for name, v in zip(names, accuracy, strict=True)},
        }


def _tables(results: dict[str, float], names: Sequence[str]) -> str:
    """Return tables: the means; then IoU and accuracy of every class that occurs."""
    means = create_small_table({k: v for k, v in results.items() if "-" not in k})
    occurring = [name for name in names if not math.isnan(results[f"IoU-{name}"])]
    rows = [[name, results[f"IoU-{name}"], results[f"ACC-{name}"]] for name in occurring]
    classes = tabulate(rows, headers=["", "IoU", "ACC"], tablefmt="pipe", floatfmt=".3f")
    return f"{means}\n\n{classes}"


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
