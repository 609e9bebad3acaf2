"""Classes of truth and prediction pixel by pixel, and the score of a single image."""

import math

import numpy as np

from eseg_d2.data.panoptic_png import segment_index
from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.evaluation.panoptic_statistics import PanopticStatistics, count_pairs, summarize
from eseg_d2.evaluation.semantic import iou_results

__all__ = ["PanopticTruth", "SemanticTruth", "class_map"]

NO_CLASS = -1


def class_map(segment_map: np.ndarray, segments: list[dict], where: str) -> np.ndarray:
    """(H, W) int64 of each pixel's ``category_id``; -1 where there is no segment.

    Args:
        segment_map: (H, W) segment ids.
        segments: with ``id`` and ``category_id``.
        where: names the map in errors.
    """
    classes = np.array([*(s["category_id"] for s in segments), NO_CLASS], dtype=np.int64)
    return classes[segment_index(segment_map, segments, where)]


class PanopticTruth(GroundTruth):
    """Scores panoptic predictions; classes are contiguous ids."""

    score_name = "PQ of the image"

    def classes(self, file_name: str) -> np.ndarray:
        """(H, W) int64 contiguous ids; -1 where void."""
        segments = self.records[file_name]["segments_info"]
        return class_map(self.segment_map(file_name), segments, file_name)

    def score(self, file_name: str, segment_map: np.ndarray, segments: list[dict]) -> float | None:
        """PQ in percent over the classes of truth and prediction, None without any.

        Args:
            file_name: of the image.
            segment_map: (H, W) predicted segment ids, 0 is void.
            segments: with ``id`` and ``category_id`` (contiguous id).
        """
        truth_segments = self.records[file_name]["segments_info"]
        statistics = PanopticStatistics(self.label_space.num_classes)
        pairs = count_pairs(
            *(self.segment_map(file_name), truth_segments, f"the truth of {file_name}"),
            *(segment_map, segments, f"the prediction for {file_name}"),
        )
        statistics.add_image(pairs, truth_segments, segments)
        quality = summarize(statistics, self.label_space)[0]["PQ"]
        return None if math.isnan(quality) else quality


class SemanticTruth(GroundTruth):
    """Scores semantic predictions; classes are semantic train ids."""

    score_name = "mIoU of the image"

    def classes(self, file_name: str) -> np.ndarray:
        """(H, W) int64 semantic train ids; -1 where void."""
        labels = self.semantic_map(file_name)
        return np.where(labels == self.label_space.ignore_label, NO_CLASS, labels)

    def score(self, file_name: str, segment_map: np.ndarray, segments: list[dict]) -> float | None:
        """mIoU in percent over the classes of truth and prediction, None if all is void.

        Args:
            file_name: of the image.
            segment_map: (H, W) ids of the predicted classes' areas.
            segments: with ``id`` and ``category_id`` (semantic train id).
        """
        truth = self.classes(file_name)
        predicted = class_map(segment_map, segments, f"the prediction for {file_name}")
        count = self.label_space.num_semantic
        valid = truth != NO_CLASS
        if not valid.any():
            return None
        pairs = truth[valid] * count + predicted[valid]
        confusion = np.bincount(pairs, minlength=count**2).reshape(count, count)
        return iou_results(confusion, self.label_space.semantic_names)["mIoU"]
