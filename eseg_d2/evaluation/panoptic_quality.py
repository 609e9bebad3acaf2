"""Panoptic quality, without panopticapi and with its numbers."""

import json
import logging
import os
from collections.abc import Iterable

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from eseg_d2.data.label_space import LabelSpace
from eseg_d2.data.panoptic_png import segment_index
from eseg_d2.evaluation.ground_truth import GroundTruth

__all__ = ["PanopticQualityEvaluator", "PanopticStatistics", "summarize"]

logger = logging.getLogger(__name__)


class PanopticStatistics:
    """Sums over images from which PQ, SQ and RQ follow; its size does not grow with them.

    Attributes:
        iou: (N,) float64, by contiguous id: sum of IoU over true positives.
        tp, fp, fn: (N,) int64.
    """

    def __init__(self, num_classes: int):
        self.iou = np.zeros(num_classes)
        self.tp, self.fp, self.fn = (np.zeros(num_classes, dtype=np.int64) for _ in range(3))

    def __iadd__(self, other: "PanopticStatistics") -> "PanopticStatistics":
        for name in ("iou", "tp", "fp", "fn"):
            getattr(self, name).__iadd__(getattr(other, name))
        return self

    def add_image(
        self,
        truth: np.ndarray,
        truth_segments: list[dict],
        prediction: np.ndarray,
        predicted_segments: list[dict],
    ) -> None:
        """Match the segments of one image, by the rules of panopticapi's ``pq_compute``.

        Args:
            truth: (H, W), index into ``truth_segments``; their number where void.
            truth_segments: with ``category_id`` (contiguous id) and ``iscrowd``.
            prediction: (H, W), index into ``predicted_segments``; their number where void.
            predicted_segments: with ``category_id`` (contiguous id). Each must have pixels.
        """
        num_truth, num_predicted = len(truth_segments), len(predicted_segments)
        pairs = np.bincount(
            truth.ravel() * (num_predicted + 1) + prediction.ravel(),
            minlength=(num_truth + 1) * (num_predicted + 1),
        ).reshape(num_truth + 1, num_predicted + 1)
        truth_class = _column(truth_segments, "category_id")
        crowd = _column(truth_segments, "iscrowd").astype(bool)
        predicted_class = _column(predicted_segments, "category_id")
        truth_area, predicted_area = pairs.sum(1)[:-1], pairs.sum(0)[:-1]
        in_void = pairs[-1, :-1]

        intersection = pairs[:-1, :-1]
        union = truth_area[:, None] + predicted_area - intersection - in_void
        comparable = (truth_class[:, None] == predicted_class) & ~crowd[:, None]
        matches = comparable & (2 * intersection > union)
        matched_truth, matched_prediction = np.nonzero(matches)
        np.add.at(self.iou, truth_class[matched_truth], intersection[matches] / union[matches])
        np.add.at(self.tp, truth_class[matched_truth], 1)

        missed = ~crowd & ~matches.any(axis=1)
        np.add.at(self.fn, truth_class[missed], 1)

        # of several crowd segments of a class, panopticapi forgives only the last one listed
        last_crowd = {c: i for i, c in enumerate(truth_class.tolist()) if crowd[i]}
        forgiven = in_void.copy()
        for j in np.flatnonzero(~matches.any(axis=0)):
            if predicted_class[j] in last_crowd:
                forgiven[j] += intersection[last_crowd[predicted_class[j]], j]
        wrong = ~matches.any(axis=0) & (2 * forgiven <= predicted_area)
        np.add.at(self.fp, predicted_class[wrong], 1)


class PanopticQualityEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ (in percent) of a data set in the panoptic format.

    Equal to panopticapi's numbers, crowd and void rules included; areas of the truth are counted
    in its png. Predictions that make no sense are an error and not a score.
    """

    def __init__(
        self, dataset_name: str, *, output_dir: str | None = None, distributed: bool = True
    ):
        """
        Args:
            dataset_name: a registered panoptic data set.
            output_dir: where ``panoptic_quality.json`` (per class) goes; None for nowhere.
            distributed: gather the results of all processes.
        """
        self._truth = GroundTruth(dataset_name)
        self._output_dir = output_dir
        self._distributed = distributed
        self.reset()

    def reset(self) -> None:
        self._statistics = PanopticStatistics(self._truth.label_space.num_classes)

    def process(self, inputs: Iterable[dict], outputs: Iterable[dict]) -> None:
        """
        Args:
            inputs: with ``file_name``.
            outputs: with ``panoptic_seg``: a map of segment ids (0 is void), and the segments'
                ``id`` and ``category_id`` (contiguous ids).

        Raises:
            ValueError: another size than the truth's, ids that are unknown, unlisted, doubled
                or without pixels; the message names the image.
        """
        for item, output in zip(inputs, outputs, strict=True):
            file_name = item["file_name"]
            segment_map, segments = output["panoptic_seg"]
            truth = self._truth.segment_index(file_name)
            truth_segments = self._truth.records[file_name]["segments_info"]
            _require_pixels(truth, truth_segments, f"the truth of {file_name}")
            prediction = self._prediction_index(file_name, segment_map, segments, truth.shape)
            self._statistics.add_image(truth, truth_segments, prediction, segments)

    def _prediction_index(self, file_name, segment_map, segments, shape) -> np.ndarray:
        where = f"the prediction for {file_name}"
        if segments is None:
            raise ValueError(f"{where} has no segments_info; give id and category_id of each")
        segment_map = np.asarray(segment_map.cpu() if hasattr(segment_map, "cpu") else segment_map)
        if segment_map.shape != shape:
            raise ValueError(f"{where} has the size {segment_map.shape}, its truth {shape}")
        num_classes = self._truth.label_space.num_classes
        unknown = {s["category_id"] for s in segments} - set(range(num_classes))
        if unknown:
            raise ValueError(
                f"{where} has the category ids {sorted(unknown)}; expected contiguous ids, "
                f"0 .. {num_classes - 1}"
            )
        index = segment_index(segment_map, segments, where)
        _require_pixels(index, segments, where)
        return index

    def evaluate(self) -> dict | None:
        """``{"panoptic_seg": {"PQ", "SQ", "RQ", "PQ_th", ..., "PQ_st", ...}}``, in percent.

        A figure over no class at all is NaN. None in all but the main process.
        """
        statistics = self._statistics
        if self._distributed:
            gathered = comm.gather(statistics)
            if not comm.is_main_process():
                return None
            statistics = PanopticStatistics(self._truth.label_space.num_classes)
            for part in gathered:
                statistics += part
        results, per_class = summarize(statistics, self._truth.label_space)
        logger.info("Panoptic quality:\n" + _table(results))
        if self._output_dir:
            os.makedirs(self._output_dir, exist_ok=True)
            with open(os.path.join(self._output_dir, "panoptic_quality.json"), "w") as f:
                json.dump(per_class, f, indent=1)
        return {"panoptic_seg": results}


def summarize(
    statistics: PanopticStatistics, label_space: LabelSpace
) -> tuple[dict[str, float], dict[str, dict]]:
    """Percentages from sums: means over the classes that occur, and each class on its own.

    Returns:
        ``{"PQ", "SQ", "RQ"}`` and the same with ``_th`` and ``_st``; and by class name
        ``{"PQ", "SQ", "RQ", "TP", "FP", "FN"}`` of the classes that occur.
    """
    tp, fp, fn = statistics.tp, statistics.fp, statistics.fn
    occurs = tp + fp + fn > 0
    weight = np.where(occurs, tp + 0.5 * fp + 0.5 * fn, 1.0)
    figures = {
        "PQ": 100 * statistics.iou / weight,
        "SQ": 100 * statistics.iou / np.maximum(tp, 1),
        "RQ": 100 * tp / weight,
    }
    results = {}
    things = label_space.is_thing
    for suffix, chosen in ("", occurs), ("_th", occurs & things), ("_st", occurs & ~things):
        for name, values in figures.items():
            results[name + suffix] = float(values[chosen].mean()) if chosen.any() else float("nan")
    per_class = {
        label_space.names[c]: {
            **{name: float(values[c]) for name, values in figures.items()},
            "TP": int(tp[c]),
            "FP": int(fp[c]),
            "FN": int(fn[c]),
        }
        for c in np.flatnonzero(occurs)
    }
    return results, per_class


def _column(segments: list[dict], key: str) -> np.ndarray:
    return np.array([s[key] for s in segments], dtype=np.int64)


def _require_pixels(index: np.ndarray, segments: list[dict], where: str) -> None:
    counts = np.bincount(index.ravel(), minlength=len(segments) + 1)[: len(segments)]
    empty = [s["id"] for s, count in zip(segments, counts, strict=True) if count == 0]
    if empty:
        raise ValueError(f"{where} lists the segments {empty}, which have no pixel")


def _table(results: dict[str, float]) -> str:
    rows = [
        [name, *(results[figure + suffix] for figure in ("PQ", "SQ", "RQ"))]
        for name, suffix in (("all", ""), ("things", "_th"), ("stuff", "_st"))
    ]
    return tabulate(rows, headers=["", "PQ", "SQ", "RQ"], tablefmt="pipe", floatfmt=".3f")
