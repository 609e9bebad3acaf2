"""Names and order of the figures that evaluators give."""

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

__all__ = ["class_figures", "finite", "flatten", "key_figures", "summary_figures"]

# By the end of the flat key: what the page shows first, and how it calls it
_KEY_FIGURES = {
    "panoptic_seg/PQ": "PQ",
    "sem_seg/mIoU": "mIoU",
    "bbox/AP": "box AP",
    "segm/AP": "mask AP",
}
_OF_A_CLASS = "IoU-"


def finite(value: Any) -> float | None:
    """The number, or None if it is none: null, text, NaN, infinite."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def flatten(nested: Any, prefix: str = "") -> dict[str, float | None]:
    """Nested results by keys such as "sem_seg/mIoU"; what is no number is None.

    Args:
        nested: task -> figure -> number, or one level more with several data sets.
        prefix: of the keys.
    """
    if not isinstance(nested, Mapping):
        return {prefix.removesuffix("/"): finite(nested)} if prefix else {}
    flat = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}/")
    return flat


def summary_figures(flat: Mapping[str, float | None]) -> dict[str, float | None]:
    """Those over all classes: the class's own are "IoU-<class>", "AP-<class>" and so on."""
    return {key: value for key, value in flat.items() if "-" not in key.rpartition("/")[2]}


def key_figures(keys: Iterable[str]) -> dict[str, str]:
    """The flat keys of the few figures to be seen first, and their short names."""
    found = {}
    for end, name in _KEY_FIGURES.items():
        for key in keys:
            if key == end or key.endswith("/" + end):
                before = key.removesuffix(end).rstrip("/")
                found[key] = f"{name}, {before}" if before else name
    return found


def class_figures(flat: Mapping[str, float | None]) -> dict[str, float | None]:
    """IoU by class name, in percent; of several data sets the first."""
    classes = {}
    for key, value in flat.items():
        _, found, rest = key.partition("sem_seg/" + _OF_A_CLASS)
        if found:
            classes.setdefault(rest, value)
    return classes
