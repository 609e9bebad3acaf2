"""The best, median and worst images of a run, with its predictions and those of other runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eseg_d2.apps.report.pictures import (
    NOT_LABELLED,
    LegendEntry,
    PictureBudget,
    Sample,
    error_map,
    legend_of,
    paint_classes,
    percent,
    semantic_colors,
    short_path,
    with_colors,
)
from eseg_d2.apps.report.predictions import PanopticTruth, Predictions, class_map
from eseg_d2.data.images import read_image
from eseg_d2.visualization.panels import draw_panoptic, resize

__all__ = ["Gallery", "choose", "evenly", "make_gallery"]

EACH = 3
"""Images of each group."""


@dataclass(frozen=True)
class Gallery:
    """
    Attributes:
        score_name: what the images are ranked by.
        ranked: how many images were.
        groups: samples by "worst", "median", "best".
        left_out: samples for which the page had no room.
        folder: that the names of the images are relative to, if it is known.
        weights: name of the checkpoint by label of the run.
    """

    score_name: str
    ranked: int
    groups: dict[str, list[Sample]]
    left_out: int
    folder: str
    weights: dict[str, str]


def evenly(names: Sequence[str], count: int | None) -> list[str]:
    """Return ``count`` of the names, spread over all of them; None returns all."""
    if count is None or count >= len(names):
        return list(names)
    return [names[i * len(names) // count] for i in range(count)]


def choose(scores: dict[str, float | None], each: int = EACH) -> dict[str, list[str]]:
    """Return the worst, median and best names by score, none of them twice.

    Args:
        scores: None is not ranked.
        each: names in each group, fewer if there are not enough.
    """
    ranked = sorted((name for name in scores if scores[name] is not None), key=scores.get)
    each = min(each, max(len(ranked) // 3, 1))
    worst = ranked[:each]
    rest = ranked[each:]
    best = rest[len(rest) - min(each, len(rest)) :][::-1]
    between = rest[: len(rest) - len(best)]
    start = max((len(between) - each) // 2, 0)
    return {"worst": worst, "median": between[start : start + each], "best": best}


def make_gallery(
    predictions: dict[str, Predictions], file_names: Sequence[str], metadata
) -> Gallery:
    """Draw those of the images that the scores of the first run choose.

    Args:
        predictions: by label of the run, complete for the images.
    """
    first = next(iter(predictions.values()))
    metadata = with_colors(metadata, first.truth.label_space)
    scores = {name: first.scores[name] for name in file_names}
    budget = PictureBudget(planned=3 * EACH * (2 + 2 * len(predictions)))
    groups = {}
    for group, names in choose(scores).items():
        samples = [_sample(predictions, name, metadata, budget) for name in names]
        groups[group] = [sample for sample in samples if sample]
    ranked = sum(score is not None for score in scores.values())
    folder = metadata.get("image_root") or ""
    weights = {label: run.weights for label, run in predictions.items()}
    return Gallery(first.truth.score_name, ranked, groups, budget.left_out, folder, weights)


def _sample(
    predictions: dict[str, Predictions], name: str, metadata, budget: PictureBudget
) -> Sample | None:
    truth = next(iter(predictions.values())).truth
    image = read_image(name, "RGB")
    width = budget.width(image)
    classes = truth.classes(name)
    segments = truth.records[name]["segments_info"]
    drawn = _draw(image, truth, truth.segment_map(name), segments, classes, metadata, width)
    pictures = {"input": resize(image, width), "truth": drawn}
    facts = []
    for label, run in predictions.items():
        of_run = f", {label}" if len(predictions) > 1 else ""
        prediction, errors, fact = _compare(image, run, name, metadata, width)
        pictures |= {f"prediction{of_run}": prediction, f"errors{of_run}": errors}
        facts.append(f"{run.truth.score_name}{of_run}: {fact}")
    panels = budget.panels(pictures)
    if panels is None:
        return None
    names, colors = _classes_of(truth, metadata)
    legend = legend_of(classes, names, colors, LegendEntry("void", NOT_LABELLED))
    return Sample(short_path(name, metadata.get("image_root")), facts, panels, legend)


def _compare(
    image: np.ndarray, run: Predictions, name: str, metadata, width: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return pictures of a prediction and its errors, and how good it is in words."""
    segment_map, segments = run[name]
    predicted = class_map(segment_map, segments, name)
    expected = run.truth.classes(name)
    counted = expected >= 0
    wrong = (predicted != expected)[counted].mean() if counted.any() else 0.0
    drawn = _draw(image, run.truth, segment_map, segments, predicted, metadata, width)
    errors = resize(error_map(image, expected, predicted), width)
    score = run.scores[name]
    shown = "undefined" if score is None else f"{score:.1f} %"
    return drawn, errors, f"{shown}, {percent(wrong)} of pixels wrong"


def _classes_of(truth, metadata) -> tuple[Sequence[str], Sequence]:
    space = truth.label_space
    if isinstance(truth, PanopticTruth):
        return space.names, metadata.stuff_colors
    return space.semantic_names, semantic_colors(metadata, space)


def _draw(image, truth, segment_map, segments, classes, metadata, width: int) -> np.ndarray:
    """Draw panoptic segments with their names, or semantic classes."""
    if isinstance(truth, PanopticTruth):
        return draw_panoptic(image, segment_map, segments, metadata, width=width)
    return resize(paint_classes(image, classes, _classes_of(truth, metadata)[1]), width)
