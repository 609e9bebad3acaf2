"""What is in one image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Segments", "segments_info"]

# ids are 24 bit; 0 is void, and some Detectron2s pad with 0xFFFFFF
_MAX_SEGMENTS = (1 << 24) - 2


@dataclass
class Segments:
    """What is in an image.

    Attributes:
        segment_map: (H, W) integers; n is ``segments[n - 1]``, 0 is void.
        segments: dicts with ``category_id`` (dataset id) and ``iscrowd``; each has a pixel.
        hidden: how many objects have no visible pixel and were left out.
    """

    segment_map: np.ndarray
    segments: list[dict]
    hidden: int = 0


def segments_info(found: Segments, path: Path) -> list[dict]:
    """The segments with ``id``, ``area`` (pixels) and ``bbox`` (x, y, width, height).

    Args:
        found: the segments of an image.
        path: of its annotation, for the error.

    Raises:
        ValueError: there are more segments than a panoptic png can hold.
    """
    count = len(found.segments)
    if count > _MAX_SEGMENTS:
        raise ValueError(f"{path} makes {count} segments; a panoptic png holds {_MAX_SEGMENTS}")
    index = found.segment_map.ravel()
    areas = np.bincount(index, minlength=count + 1)[1:]
    first, last = [], []
    for positions in np.indices(found.segment_map.shape, sparse=True):
        positions = np.broadcast_to(positions, found.segment_map.shape).ravel()
        low, high = np.full(count + 1, index.size), np.full(count + 1, -1)
        np.minimum.at(low, index, positions)
        np.maximum.at(high, index, positions)
        first.append(low[1:])
        last.append(high[1:])
    (top, left), (bottom, right) = first, last
    boxes = np.stack([left, top, right - left + 1, bottom - top + 1], -1).tolist()
    return [
        {"id": number, "area": area, "bbox": box, **segment}
        for number, (segment, area, box) in enumerate(
            zip(found.segments, areas.tolist(), boxes, strict=True), start=1
        )
    ]
