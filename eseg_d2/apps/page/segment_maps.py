"""The maps of segments that the page draws over an image, with colours and legend."""

import base64
import colorsys
import zlib
from collections import Counter

import numpy as np

from eseg_d2.inference.prediction import ClassTable, Prediction

__all__ = ["make_views"]

# what a pixel without a segment is, by view
_REST = {
    "panoptic": {"class_id": -1, "color": [0, 0, 0], "text": "void"},
    "semantic": {"class_id": -1, "color": [255, 255, 255], "text": "objects of any class"},
    "instances": {"class_id": -1, "color": None, "text": "no object"},
}


def make_views(prediction: Prediction, classes: ClassTable) -> dict[str, dict]:
    """Make the views that a prediction allows, ready for json, by name: panoptic, semantic,
    instances.

    Returns:
        For each view ``ids`` (the map of segments: (H, W) little-endian uint16, zlib, base64, an
        index into ``segments``), ``segments`` (``color`` RGB or None, ``class_id`` and ``text``;
        the first one is for pixels without a segment, of class -1), ``outlines`` (whether to draw
        them) and ``legend`` (by descending ``share`` of the pixels, with ``class_id``, ``name``,
        ``color`` and ``count`` of objects, None for stuff).
    """
    masks = {}
    if prediction.kind == "panoptic":
        masks["panoptic"] = ((s, prediction.panoptic == s["id"]) for s in prediction.segments)
    if prediction.semantic is not None:
        stuff = {"isthing": False, "id": None, "score": None}
        masks["semantic"] = (
            ({**stuff, "class_id": c}, prediction.semantic == c)
            for c in np.unique(prediction.semantic).tolist()
            if c < len(classes.names)
        )
    if prediction.instances is not None:
        masks["instances"] = _objects(prediction)
    return {
        name: _view(pairs, prediction.size, classes, _REST[name]) for name, pairs in masks.items()
    }


def _objects(prediction: Prediction):
    """Yield objects and their masks (boxes if there are no masks), the best last."""
    found = prediction.instances
    for i in reversed(range(len(found.scores))):
        if found.crops is not None:
            mask = found.mask(i)
        else:
            mask = np.zeros(prediction.size, bool)
            x0, y0, x1, y1 = np.round(found.boxes[i]).astype(int).clip(0)
            mask[y0:y1, x0:x1] = True
        segment = {"class_id": int(found.classes[i]), "score": float(found.scores[i])}
        yield {**segment, "isthing": True, "id": i + 1}, mask


def _view(masks, size: tuple[int, int], classes: ClassTable, rest: dict) -> dict:
    """Make a view of (segment, mask) pairs, later ones over earlier ones, and of the rest."""
    index = np.zeros(size, np.uint16)
    segments = []
    for segment, mask in masks:
        segments.append(segment)
        index[mask] = len(segments)
    areas = np.bincount(index.ravel(), minlength=len(segments) + 1)
    nowhere, *shares = (areas / index.size).tolist()
    numbers = Counter()
    shown = [rest]
    for segment, share in zip(segments, shares, strict=True):
        class_id = segment["class_id"]
        color = classes.colors[class_id]
        if segment["isthing"]:
            color = _shade(color, numbers[class_id])
            numbers[class_id] += 1
        text = _describe(segment, classes.names[class_id], share)
        shown.append({"class_id": class_id, "color": list(color), "text": text})
    legend = _legend(segments, shares, classes)
    if nowhere:
        row = {"class_id": rest["class_id"], "name": rest["text"], "color": rest["color"]}
        legend.append({**row, "count": None, "share": nowhere})
    packed = zlib.compress(index.astype("<u2").tobytes(), 6)
    return {
        "ids": base64.b64encode(packed).decode(),
        "segments": shown,
        "outlines": any(segment["isthing"] for segment in segments),
        "legend": sorted(legend, key=lambda row: -row["share"]),
    }


def _legend(segments: list[dict], shares: list[float], classes: ClassTable) -> list[dict]:
    rows = {}
    for segment, share in zip(segments, shares, strict=True):
        class_id = segment["class_id"]
        row = rows.setdefault(
            class_id,
            {
                "class_id": class_id,
                "name": classes.names[class_id],
                "color": list(classes.colors[class_id]),
                "count": 0 if segment["isthing"] else None,
                "share": 0.0,
            },
        )
        row["share"] += share
        if segment["isthing"]:
            row["count"] += 1
    return list(rows.values())


def _describe(segment: dict, name: str, share: float) -> str:
    parts = [name, f"class {segment['class_id']}"]
    if segment["id"] is not None:
        parts.append(f"id {segment['id']}")
    if segment["score"] is not None:
        parts.append(f"score {segment['score']:.2f}")
    return ", ".join([*parts, f"{100 * share:.1f} % of the pixels"])


def _shade(color: tuple[int, int, int], number: int) -> tuple[int, int, int]:
    """Return the colour of the class for its first object, and lighter and darker ones after it."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(c / 255 for c in color))
    lightness = (lightness + 0.17 * number) % 0.6 + 0.2 if number else lightness
    return tuple(round(255 * c) for c in colorsys.hls_to_rgb(hue, lightness, saturation))
