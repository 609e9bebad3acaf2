"""Panoptic quality by panopticapi's rules, without panopticapi."""

import logging
import os
from collections.abc import Iterable

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from eseg_d2.data.panoptic_png import find_runs, look_up_segments
from eseg_d2.evaluation.ground_truth import GroundTruth, as_numpy
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.json_yaml import write_json

__all__ = ["PanopticQualityEvaluator", "PanopticStatistics", "count_pairs", "summarize"]

IOU_UNITS = 2**40  # leaves room for 2**22 true positives of a class
logger = logging.getLogger(__name__)


class PanopticStatistics:
    """Sums over images from which PQ, SQ and RQ follow; its size does not grow with them.

    IoUs are summed as integers, in units of 2**-40: the sum is the same to the last digit in
    whatever order, and over however many processes, it is taken.

    Attributes:
        tp, fp, fn: (N,) int64, by contiguous id.
    """

    def __init__(self, num_classes: int):
        arrays = (np.zeros(num_classes, dtype=np.int64) for _ in range(4))
        self._iou_units, self.tp, self.fp, self.fn = arrays

    @property
    def iou(self) -> np.ndarray:
        """(N,) float64, by contiguous id: sum of IoU over true positives."""
        return self._iou_units / IOU_UNITS

    def __iadd__(self, other: "PanopticStatistics") -> "PanopticStatistics":
        for name in ("_iou_units", "tp", "fp", "fn"):
            getattr(self, name).__iadd__(getattr(other, name))
        return self

    def add_image(
        self, pairs: np.ndarray, truth_segments: list[dict], predicted_segments: list[dict]
    ) -> None:
        """Match the segments of one image, by the rules of panopticapi's ``pq_compute``.

        Args:
            pairs: of :func:`count_pairs`.
            truth_segments: T, with ``category_id`` (contiguous id) and ``iscrowd``.
            predicted_segments: P, with ``category_id`` (contiguous id). Each must have pixels.
        """
        truth_class = _column(truth_segments, "category_id")
        crowd = _column(truth_segments, "iscrowd").astype(bool)
        predicted_class = _column(predicted_segments, "category_id")
        truth_area, predicted_area = pairs.sum(1)[:-1], pairs.sum(0)[:-1]
        in_void = pairs[-1, :-1]

        intersection = pairs[:-1, :-1]
        union = truth_area[:, None] + predicted_area - intersection - in_void
        comparable = (truth_class[:, None] == predicted_class) & ~crowd[:, None]
        matches = comparable & (2 * intersection > union)
        matched_truth, _ = np.nonzero(matches)
        iou = np.rint(intersection[matches] / union[matches] * IOU_UNITS).astype(np.int64)
        np.add.at(self._iou_units, truth_class[matched_truth], iou)
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


def count_pairs(
    truth: np.ndarray,
    truth_segments: list[dict],
    truth_name: str,
    prediction: np.ndarray,
    predicted_segments: list[dict],
    prediction_name: str,
) -> np.ndarray:
    """Return how many pixels each segment of the truth shares with each of the prediction.

    Args:
        truth, prediction: (H, W) integers, segment ids; 0 is void.
        truth_segments, predicted_segments: T and P, with ``id``.
        truth_name, prediction_name: what is wrong if one is, for the error.

    Returns:
        (T + 1, P + 1) int64, the last row and column void.

    Raises:
        ValueError: ids that are unlisted or doubled, or a segment without pixels.
    """
    (truth_ids, predicted_ids), lengths = find_runs(truth, prediction)
    rows = look_up_segments(truth_ids, truth_segments, truth_name)
    columns = look_up_segments(predicted_ids, predicted_segments, prediction_name)
    shape = len(truth_segments) + 1, len(predicted_segments) + 1
    # float64 holds such counts exactly
    counts = np.bincount(rows * shape[1] + columns, lengths, minlength=shape[0] * shape[1])
    pairs = counts.astype(np.int64).reshape(shape)
    _require_pixels(pairs.sum(1), truth_segments, truth_name)
    _require_pixels(pairs.sum(0), predicted_segments, prediction_name)
    return pairs


def _require_pixels(areas: np.ndarray, segments: list[dict], where: str) -> None:
    empty = [s["id"] for s, area in zip(segments, areas, strict=False) if area == 0]
    if empty:
        raise ValueError(f"{where} lists the segments {empty}, which have no pixel")


def summarize(
    statistics: PanopticStatistics, label_space: LabelSpace
) -> tuple[dict[str, float], dict[str, dict]]:
    """Return the percentages of sums: means over the classes that occur, and each class on its own.

    Returns:
        ``{"PQ", "SQ", "RQ"}`` and the same with ``_th`` and ``_st``; and by class name
        ``{"PQ", "SQ", "RQ", "TP", "FP", "FN"}`` of the classes that occur.
    """
    tp, fp, fn = statistics.tp, statistics.fp, statistics.fn
    occurs = tp + fp + fn > 0
    weight = np.where(occurs, tp + 0.5 * fp + 0.5 * fn, 1.0)
    metrics = {
        "PQ": 100 * statistics.iou / weight,
        "SQ": 100 * statistics.iou / np.maximum(tp, 1),
        "RQ": 100 * tp / weight,
    }
    results = {}
    things = label_space.is_thing
    for suffix, chosen in ("", occurs), ("_th", occurs & things), ("_st", occurs & ~things):
        for name, values in metrics.items():
            results[name + suffix] = float(values[chosen].mean()) if chosen.any() else float("nan")
    per_class = {
        label_space.names[c]: {
            **{name: float(values[c]) for name, values in metrics.items()},
            "TP": int(tp[c]),
            "FP": int(fp[c]),
            "FN": int(fn[c]),
        }
        for c in np.flatnonzero(occurs)
    }
    return results, per_class


def _column(segments: list[dict], key: str) -> np.ndarray:
    return np.array([s[key] for s in segments], dtype=np.int64)


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
            truth = self._truth.segment_map(file_name)
            truth_segments = self._truth.records[file_name]["segments_info"]
            where = f"the prediction for {file_name}"
            segment_map = self._checked(segment_map, segments, truth.shape, where)
            pairs = count_pairs(
                truth, truth_segments, f"the truth of {file_name}", segment_map, segments, where
            )
            self._statistics.add_image(pairs, truth_segments, segments)

    def _checked(self, segment_map, segments, shape, where: str) -> np.ndarray:
        if segments is None:
            raise ValueError(f"{where} has no segments_info; give id and category_id of each")
        segment_map = as_numpy(segment_map)
        if segment_map.shape != shape:
            raise ValueError(f"{where} has the size {segment_map.shape}, its truth {shape}")
        num_classes = self._truth.label_space.num_classes
        unknown = {s["category_id"] for s in segments} - set(range(num_classes))
        if unknown:
            raise ValueError(
                f"{where} has the category ids {sorted(unknown)}; expected contiguous ids, "
                f"0 .. {num_classes - 1}"
            )
        return segment_map

    def evaluate(self) -> dict | None:
        """Return ``{"panoptic_seg": {"PQ", "SQ", "RQ", "PQ_th", ..., "PQ_st", ...}}``, in percent.

        A metric over no class at all is NaN. None in all but the main process.
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
        logger.info("Panoptic quality:\n" + _tables(results, per_class))
        if self._output_dir:
            os.makedirs(self._output_dir, exist_ok=True)
            path = os.path.join(self._output_dir, "panoptic_quality.json")
            write_json(path, per_class, indent=1, sort_keys=False)
        return {"panoptic_seg": results}


def _tables(results: dict[str, float], per_class: dict[str, dict]) -> str:
    """Return a table: means over all classes, things and stuff; then every class."""
    metrics = ("PQ", "SQ", "RQ")
    rows = [
        [name, *(results[metric + suffix] for metric in metrics)]
        for name, suffix in (("all", ""), ("things", "_th"), ("stuff", "_st"))
    ]
    counts = ("TP", "FP", "FN")
    rows += [
        [name, *(values[key] for key in metrics + counts)] for name, values in per_class.items()
    ]
    head = ["", *metrics, *counts]
    return tabulate(rows, headers=head, tablefmt="pipe", floatfmt=".3f")
