"""What is in one image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eseg_d2.data.panoptic_png import count_segments

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
    pixels = count_segments(found.segment_map)
    return [
        {
            "id": number,
            "area": pixels[number].area,
            "bbox": list(pixels[number].bbox),
            **segment,
        }
        for number, segment in enumerate(found.segments, start=1)
    ]
