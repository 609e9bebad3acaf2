"""Panoptic quality, without panopticapi and with its numbers."""

import logging
import os
from collections.abc import Iterable

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from eseg_d2.evaluation.ground_truth import GroundTruth, as_numpy
from eseg_d2.evaluation.panoptic_statistics import PanopticStatistics, count_pairs, summarize
from eseg_d2.utils.json_yaml import write_json

__all__ = ["PanopticQualityEvaluator"]

logger = logging.getLogger(__name__)


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
