"""Polygons and both kinds of RLE of COCO's annotations, checked before pycocotools sees them."""

import numpy as np
from pycocotools import mask as coco_mask

__all__ = ["to_rle"]


def to_rle(segmentation: list | dict, height: int, width: int, where: str) -> dict:
    """Return the compressed RLE of polygons or of an RLE.

    Args:
        segmentation: of an annotation of COCO.
        height, width: of the image in pixels.
        where: what to name in the error.

    Raises:
        ValueError: it is neither, or of another size.
    """
    if not isinstance(segmentation, dict):
        return _polygons(segmentation, height, width, where)
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise ValueError(
            f"{where}: its RLE is of size {size}; expected {[height, width]} (height, width), as "
            "the image"
        )
    if isinstance(counts, str):
        counts = _decompress(counts)
    # pycocotools trusts them, and leaves what they do not reach as the memory was
    is_list = isinstance(counts, list) and all(type(c) is int and c >= 0 for c in counts)
    if not is_list or sum(counts) != height * width:
        raise ValueError(f"{where}: the counts of its RLE do not add up to {height}x{width} pixels")
    return coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)


def _decompress(text: str) -> list[int]:
    """Return the counts of a compressed RLE: 5 bits a character, from the third on differences."""
    counts, value, shift = [], 0, 0
    for character in text.encode():
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts


def _polygons(polygons: list, height: int, width: int, where: str) -> dict:
    """Return the compressed RLE of polygons together; empty if none of them has three points."""
    try:
        numbers = [[float(number) for number in polygon] for polygon in polygons]
    except (TypeError, ValueError) as e:
        raise ValueError(f"{where}: expected polygons [[x, y, x, y, ...], ...] or an RLE") from e
    if any(len(n) % 2 or not np.isfinite(n).all() for n in numbers):
        raise ValueError(f"{where}: a polygon has an odd number of coordinates, or one not finite")
    # pycocotools takes four numbers for a box
    shapes = [n for n in numbers if len(n) >= 6]
    if not shapes:
        return coco_mask.encode(np.zeros((height, width), dtype=np.uint8, order="F"))
    return coco_mask.merge(coco_mask.frPyObjects(shapes, height, width))
