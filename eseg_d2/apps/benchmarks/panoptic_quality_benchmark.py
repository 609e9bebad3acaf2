"""Compare the speed of panoptic quality with cityscapesscripts, which equals panopticapi."""

import contextlib
import io
import tempfile
from pathlib import Path

import cv2
import numpy as np

from eseg_d2.apps.benchmarks.measure import take_turns
from eseg_d2.data.panoptic_png import count_segments, read_panoptic_png, rgb_to_segment_id
from eseg_d2.evaluation.panoptic_quality import PanopticStatistics, count_pairs, summarize
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.files import write_image

__all__ = ["benchmark_panoptic_quality"]

NUM_CLASSES = 10


def benchmark_panoptic_quality(
    *, images: int, size: tuple[int, int], segments: int, repeats: int
) -> dict:
    """Time both in turns on the same panoptic pngs, in one process and including their reading.

    Args:
        images: number of images.
        size: (H, W) of the maps.
        segments: number of ellipses in each map, some of them hidden by others.
        repeats: timed rounds, after one to warm up.

    Returns:
        {"ours", "cityscapesscripts": {"median", "min", "max"} seconds for all images,
        "speedup": ratio of the medians, "difference": difference of the PQ in percent}.
    """
    rng = np.random.default_rng(0)
    truths = [_random_map(rng, size, segments) for _ in range(images)]
    predictions = [(np.roll(rgb, rng.integers(-9, 10, 2), (0, 1)), info) for rgb, info in truths]
    with tempfile.TemporaryDirectory() as folder:
        sides = [
            _write(Path(folder, "truth"), truths),
            _write(Path(folder, "prediction"), predictions),
        ]
        calls = {
            "ours": lambda: _ours(folder, *sides),
            "cityscapesscripts": lambda: _cityscapesscripts(folder, *sides),
        }
        seconds = take_turns(calls, repeats, "cpu")
        difference = abs(calls["ours"]() - calls["cityscapesscripts"]())
    medians = [seconds[name]["median"] for name in calls]
    return {**seconds, "speedup": medians[1] / medians[0], "difference": difference}


def _write(folder: Path, images) -> list[dict]:
    """Write panoptic pngs, and return their annotations."""
    folder.mkdir()
    annotations = []
    for i, (rgb, segments) in enumerate(images):
        write_image(folder / f"{i}.png", rgb)
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
    return annotations


def _random_map(rng, size: tuple[int, int], segments: int) -> tuple[np.ndarray, list[dict]]:
    """Return the pixels of a panoptic png (RGB), and its segments_info."""
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


def _ours(folder: str, truths: list[dict], predictions: list[dict]) -> float:
    statistics = PanopticStatistics(NUM_CLASSES)
    for truth, prediction in zip(truths, predictions, strict=True):
        true_map, predicted_map = (
            read_panoptic_png(f"{folder}/{side}/{one['file_name']}")
            for side, one in (("truth", truth), ("prediction", prediction))
        )
        segments = truth["segments_info"], prediction["segments_info"]
        pairs = count_pairs(
            *(true_map, segments[0], "a truth"), *(predicted_map, segments[1], "a prediction")
        )
        statistics.add_image(pairs, *segments)
    names = tuple(map(str, range(NUM_CLASSES)))
    space = LabelSpace(names=names, dataset_ids=tuple(range(NUM_CLASSES)), thing_ids=())
    return summarize(statistics, space)[0]["PQ"]


def _cityscapesscripts(folder: str, *sides: list[dict]) -> float:
    from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as official

    # it modifies the segments that it is given
    copies = [[{**a, "segments_info": [*map(dict, a["segments_info"])]} for a in s] for s in sides]
    pairs = list(zip(*copies, strict=True))
    folders = f"{folder}/truth", f"{folder}/prediction"
    categories = {c: {"isthing": 0} for c in range(NUM_CLASSES)}
    with contextlib.redirect_stdout(io.StringIO()):
        statistics = official.pq_compute_single_core(0, pairs, *folders, categories)
    return 100 * statistics.pq_average(categories, isthing=None)[0]["pq"]
