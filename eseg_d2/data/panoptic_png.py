"""Read panoptic pngs and look up what their segments are."""

import numpy as np
from detectron2.data import detection_utils

__all__ = ["read_panoptic_png", "rgb_to_segment_id", "segment_index"]

VOID = 0
# What newer Detectron2s pad a panoptic png with: 255 in each channel.
PADDING = 0xFFFFFF


def rgb_to_segment_id(rgb: np.ndarray) -> np.ndarray:
    """Segment ids of a panoptic png.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        (H, W) int32, R + 256 G + 65536 B.
    """
    r, g, b = (rgb[..., c].astype(np.int32) for c in range(3))
    return r | g << 8 | b << 16


def read_panoptic_png(path: str) -> np.ndarray:
    """The (H, W) int32 map of segment ids in a panoptic png.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be decoded.
    """
    return rgb_to_segment_id(read_image(path, "RGB"))


def read_image(path: str, image_format: str) -> np.ndarray:
    """(H, W, 3) uint8 by Detectron2's reader; its errors name the file."""
    try:
        return detection_utils.read_image(path, format=image_format)
    except FileNotFoundError as e:
        raise FileNotFoundError(f"no such image: {path}") from e
    except (OSError, SyntaxError) as e:
        raise ValueError(f"cannot read the image {path}: {e}. Is it complete?") from e


def segment_index(segment_map: np.ndarray, segments_info: list[dict], path: str) -> np.ndarray:
    """Which of the listed segments each pixel belongs to.

    Args:
        segment_map: (H, W) integers, segment ids.
        segments_info: the segments, each with its ``id``.
        path: of the png, for the error.

    Returns:
        (H, W) int64: index into ``segments_info``; ``len(segments_info)`` where void.

    Raises:
        ValueError: pixels have an id that is not listed, or two segments share an id.
    """
    ids = np.array([s["id"] for s in segments_info], dtype=np.int64)
    if len(np.unique(ids)) != len(ids):
        shared = sorted(i for i in set(ids.tolist()) if (ids == i).sum() > 1)
        raise ValueError(f"{path}: several segments have the id {shared}; ids must be unique")
    order = np.argsort(ids)
    slot = np.searchsorted(ids, segment_map, sorter=order)
    index = np.append(order, len(ids))[slot]
    known = np.append(ids, -1)[index] == segment_map
    if not known.all():
        unknown = set(np.unique(segment_map[~known]).tolist()) - {VOID, PADDING}
        if unknown:
            raise ValueError(
                f"{path}: pixels have the segment ids {sorted(unknown)}, which its segments_info "
                "does not list. Add them there, or set the pixels to 0 (void)."
            )
        index[~known] = len(ids)
    return index
