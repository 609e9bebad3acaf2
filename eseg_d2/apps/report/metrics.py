"""Names and order of the metrics that evaluators give."""

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from detectron2.evaluation.testing import flatten_results_dict

__all__ = ["class_metrics", "finite", "flatten", "key_metrics", "summary_metrics"]

# By the end of the flat key: what the page shows first, and under which name
_KEY_METRICS = {
    "panoptic_seg/PQ": "PQ",
    "sem_seg/mIoU": "mIoU",
    "bbox/AP": "box AP",
    "segm/AP": "mask AP",
}


def finite(value: Any) -> float | None:
    """Return a number as float, or None for anything else: null, text, NaN, infinity."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def flatten(nested: Mapping) -> dict[str, float | None]:
    """Return nested results by keys such as "sem_seg/mIoU"; what is not a number is None.

    Args:
        nested: task -> metric -> number, with one level more for several data sets.
    """
    return {key: finite(value) for key, value in flatten_results_dict(nested).items()}


def summary_metrics(flat: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the metrics over all classes; those of a class are "IoU-<class>", "AP-<class>" ..."""
    return {key: value for key, value in flat.items() if "-" not in key.rpartition("/")[2]}


def key_metrics(keys: Iterable[str]) -> dict[str, str]:
    """Return the flat keys of the few metrics that are shown first, with their short names."""
    found = {}
    for end, name in _KEY_METRICS.items():
        for key in keys:
            if key == end or key.endswith("/" + end):
                before = key.removesuffix(end).rstrip("/")
                found[key] = f"{name}, {before}" if before else name
    return found


def class_metrics(flat: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the IoU by class name, in percent; of several data sets that of the first."""
    classes = {}
    for key, value in flat.items():
        _, found, rest = key.partition("sem_seg/IoU-")
        if found:
            classes.setdefault(rest, value)
    return classes
