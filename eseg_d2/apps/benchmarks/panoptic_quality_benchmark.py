"""Speed of panoptic quality against cityscapesscripts, which computes panopticapi's numbers."""

import contextlib
import io
from unittest import mock

import cv2
import numpy as np

from eseg_d2.apps.benchmarks.measure import take_turns
from eseg_d2.data.panoptic_png import count_segments, rgb_to_segment_id
from eseg_d2.evaluation.panoptic_statistics import PanopticStatistics, count_pairs, summarize
from eseg_d2.structures.label_space import LabelSpace

__all__ = ["benchmark_panoptic_quality"]

NUM_CLASSES = 10


def benchmark_panoptic_quality(
    *, images: int, size: tuple[int, int], segments: int, repeats: int
) -> dict:
    """Times both on the same maps in memory, one process, in turns.

    Args:
        images: how many.
        size: (H, W) of the maps.
        segments: of each map, at most; ellipses, some hidden by others.
        repeats: timed rounds, after one to warm up.

    Returns:
        {"ours", "cityscapesscripts": {"median", "min", "max"} seconds for all images,
        "speedup": ratio of the medians, "difference": of the PQ, in percent}.
    """
    rng = np.random.default_rng(0)
    truths = [_random_map(rng, size, segments) for _ in range(images)]
    predictions = [(np.roll(rgb, rng.integers(-9, 10, 2), (0, 1)), info) for rgb, info in truths]
    calls = {
        "ours": lambda: _ours(truths, predictions),
        "cityscapesscripts": lambda: _cityscapesscripts(truths, predictions),
    }
    seconds = take_turns(calls, repeats, "cpu")
    medians = [seconds[name]["median"] for name in calls]
    difference = abs(calls["ours"]() - calls["cityscapesscripts"]())
    return {**seconds, "speedup": medians[1] / medians[0], "difference": difference}


def _random_map(rng, size: tuple[int, int], segments: int) -> tuple[np.ndarray, list[dict]]:
    """An RGB panoptic png in memory, and its segments_info."""
    height, width = size
    rgb = np.zeros((*size, 3), np.uint8)
    colors = rng.choice(2**24 - 1, segments, replace=False) + 1
    info = []
    for number in colors.tolist():
        center = (int(rng.integers(width)), int(rng.integers(height)))
        axes = [int(x) for x in rng.integers(height // 16, height // 2, 2)]
        color = (number & 255, number >> 8 & 255, number >> 16)
        cv2.ellipse(rgb, center, axes, 0, 0, 360, color, -1)
        category = int(rng.integers(NUM_CLASSES))
        info.append({"id": number, "category_id": category, "iscrowd": 0})
    found = count_segments(rgb_to_segment_id(rgb))
    return rgb, [{**s, "area": found[s["id"]].area} for s in info if s["id"] in found]


def _ours(truths, predictions) -> float:
    statistics = PanopticStatistics(NUM_CLASSES)
    for (truth, truth_info), (prediction, info) in zip(truths, predictions, strict=True):
        maps = rgb_to_segment_id(truth), rgb_to_segment_id(prediction)
        pairs = count_pairs(maps[0], truth_info, "a truth", maps[1], info, "a prediction")
        statistics.add_image(pairs, truth_info, info)
    names = tuple(map(str, range(NUM_CLASSES)))
    space = LabelSpace(names=names, dataset_ids=tuple(range(NUM_CLASSES)), thing_ids=())
    return summarize(statistics, space)[0]["PQ"]


def _cityscapesscripts(truths, predictions) -> float:
    from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as official

    maps = {f"truth/{i}": rgb for i, (rgb, _) in enumerate(truths)}
    maps |= {f"prediction/{i}": rgb for i, (rgb, _) in enumerate(predictions)}
    annotations = [
        [
            # it writes into what it is given
            {"image_id": i, "file_name": str(i), "segments_info": [dict(s) for s in info]}
            for i, (_, info) in enumerate(images)
        ]
        for images in (truths, predictions)
    ]
    pairs = list(zip(*annotations, strict=True))
    categories = {c: {"isthing": 0} for c in range(NUM_CLASSES)}
    from_memory = mock.patch.object(official.Image, "open", maps.__getitem__)
    with from_memory, contextlib.redirect_stdout(io.StringIO()):
        statistics = official.pq_compute_single_core(0, pairs, "truth", "prediction", categories)
    return 100 * statistics.pq_average(categories, isthing=None)[0]["pq"]
