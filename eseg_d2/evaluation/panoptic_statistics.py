"""The sums behind panoptic quality, by panopticapi's rules."""

import numpy as np

from eseg_d2.data.panoptic_png import find_runs, look_up_segments
from eseg_d2.structures.label_space import LabelSpace

__all__ = ["PanopticStatistics", "count_pairs", "summarize"]

IOU_UNITS = 2**40  # leaves room for 2**22 true positives of a class


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
