"""Read panoptic pngs and look up what their segments are."""

import os

import cv2
import numpy as np
from detectron2.data import detection_utils

__all__ = [
    "find_runs",
    "look_up_segments",
    "read_image",
    "read_panoptic_png",
    "rgb_to_segment_id",
    "segment_index",
]

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
    if rgb.size == 0:  # OpenCV takes no empty image
        return np.zeros(rgb.shape[:2], np.int32)
    return _four_bytes_to_id(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2RGBA))


def _four_bytes_to_id(rgba: np.ndarray) -> np.ndarray:
    ids = rgba.view("<i4")[..., 0]
    ids &= 0xFFFFFF  # in place: a new map would cost as much again
    return ids


def read_panoptic_png(path: str) -> np.ndarray:
    """The (H, W) int32 map of segment ids in a panoptic png.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be decoded.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such image: {path}")
    bgr = cv2.imread(path, cv2.IMREAD_COLOR)  # half again as fast as PIL
    if bgr is None:
        raise ValueError(f"cannot read the image {path}. Is it complete?")
    return _four_bytes_to_id(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGBA))


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
        (H, W) int32: index into ``segments_info``; ``len(segments_info)`` where void.

    Raises:
        ValueError: pixels have an id that is not listed, or two segments share an id.
    """
    (ids,), lengths = find_runs(segment_map)
    index = look_up_segments(ids, segments_info, path).astype(np.int32)
    return np.repeat(index, lengths).reshape(segment_map.shape)


def find_runs(*maps: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Pixels in reading order, as runs in which no map changes: far fewer than there are pixels.

    Args:
        maps: integers, all of one shape.

    Returns:
        The (R,) values of each map, and the (R,) int64 lengths of the runs.
    """
    flat = [m.ravel() for m in maps]
    changes = flat[0][1:] != flat[0][:-1]
    for values in flat[1:]:
        changes |= values[1:] != values[:-1]
    first = np.zeros(min(flat[0].size, 1), np.int64)
    starts = np.concatenate([first, np.flatnonzero(changes) + 1])
    return [values[starts] for values in flat], np.diff(starts, append=flat[0].size)


def look_up_segments(ids: np.ndarray, segments_info: list[dict], path: str) -> np.ndarray:
    """As :func:`segment_index`, of (R,) segment ids."""
    known_ids = np.array([s["id"] for s in segments_info], dtype=np.int64)
    order = np.argsort(known_ids)
    ascending = known_ids[order]
    twice = np.flatnonzero(ascending[1:] == ascending[:-1])
    if len(twice):
        shared = sorted(set(ascending[twice].tolist()))
        raise ValueError(f"{path}: several segments have the id {shared}; ids must be unique")
    slot = np.searchsorted(ascending, ids)
    known = np.append(ascending, -1)[slot] == ids
    index = np.append(order, len(known_ids))[slot]
    if not known.all():
        unknown = set(np.unique(ids[~known]).tolist()) - {VOID, PADDING}
        if unknown:
            raise ValueError(
                f"{path}: pixels have the segment ids {sorted(unknown)}, which its segments_info "
                "does not list. Add them there, or set the pixels to 0 (void)."
            )
        index[~known] = len(known_ids)
    return index
