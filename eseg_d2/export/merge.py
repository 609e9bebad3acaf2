"""Merge the raw predictions of an exported panoptic model to a panoptic map, with numpy alone.

This file may be copied to where the exported model runs.
"""

import numpy as np

__all__ = ["merge_panoptic", "paste_mask"]


def merge_panoptic(raw: dict[str, np.ndarray], settings: dict) -> tuple[np.ndarray, list[dict]]:
    """Merge predictions by Panoptic FPN's heuristic.

    Instances are placed in order of descending score, then stuff where nothing is yet.

    Args:
        raw: outputs of the exported model by name: "semantic" (H, W), "boxes" (N, 4),
            "scores" (N,), "classes" (N,) and "masks" (N, M, M).
        settings: "merge" in the ``model.json`` beside the exported model. Its
            "score_threshold", "overlap_threshold" and "stuff_area_limit" may be changed.

    Returns:
        The (H, W) int32 map of segment ids (0 is void), and a dict for each segment: "id",
        "category_id" (contiguous id, an index into settings["names"]), "isthing", "area" (pixels),
        and for things "score" and "instance_id", the row in ``raw``.
    """
    semantic = raw["semantic"]
    panoptic = np.zeros(semantic.shape, np.int32)
    segments: list[dict] = []

    def add(rows: slice, columns: slice, mask: np.ndarray, **info) -> None:
        panoptic[rows, columns][mask] = len(segments) + 1
        segments.append({"id": len(segments) + 1, "area": int(mask.sum()), **info})

    for i in np.argsort(-raw["scores"], kind="stable").tolist():
        score = float(raw["scores"][i])
        if score < settings["score_threshold"]:
            break
        rows, columns, mask = paste_mask(raw["masks"][i], raw["boxes"][i], semantic.shape)
        visible = mask & (panoptic[rows, columns] == 0)
        area, full_area = int(visible.sum()), int(mask.sum())
        if area == 0 or full_area - area > settings["overlap_threshold"] * full_area:
            continue
        category = int(raw["classes"][i])
        info = {"category_id": category, "isthing": True, "score": score, "instance_id": i}
        add(rows, columns, visible, **info)

    everywhere = slice(None)
    for train_id, category in enumerate(settings["semantic_to_contiguous"]):
        if category < 0 or settings["is_thing"][category]:
            continue
        mask = (semantic == train_id) & (panoptic == 0)
        if mask.sum() >= max(settings["stuff_area_limit"], 1):
            add(everywhere, everywhere, mask, category_id=category, isthing=False)
    return panoptic, segments


def paste_mask(
    mask: np.ndarray, box: np.ndarray, image_size: tuple[int, int]
) -> tuple[slice, slice, np.ndarray]:
    """Resize an instance's mask to its box bilinearly, and threshold it at 0.5.

    Args:
        mask: (M, M) float32, 0 .. 1.
        box: x0, y0, x1, y1 in pixels; an empty box gives an empty mask.
        image_size: (H, W) in pixels.

    Returns:
        The rows and columns of the image that the box covers, and the bool mask of these.
    """
    x0, y0, x1, y1 = box.astype(np.float32)
    if not (x1 > x0 and y1 > y0):
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), bool)
    rows, row_weights = _hat_weights(y0, y1, image_size[0], len(mask))
    columns, column_weights = _hat_weights(x0, x1, image_size[1], len(mask))
    return rows, columns, row_weights @ mask.astype(np.float32) @ column_weights.T >= 0.5


def _hat_weights(start, end, length: int, cells: int) -> tuple[slice, np.ndarray]:
    """Return the pixels near [start, end], and their bilinear weights (pixels, cells)."""
    first = max(int(np.floor(start)) - 1, 0)
    last = min(int(np.ceil(end)) + 1, length)
    pixels = np.arange(first, last, dtype=np.float32) + 0.5
    position = (pixels - start) / (end - start) * cells - 0.5
    weights = 1 - np.abs(position[:, None] - np.arange(cells, dtype=np.float32))
    return slice(first, last), np.maximum(weights, 0)
