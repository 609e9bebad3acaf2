"""Read panoptic pngs, and look up and measure their segments."""

from typing import NamedTuple

import cv2
import numpy as np

from eseg_d2.data.images import opened
from eseg_d2.utils.errors import BadSampleError

__all__ = [
    "PADDING",
    "VOID",
    "PngHeader",
    "SegmentPixels",
    "count_segments",
    "find_runs",
    "look_up_segments",
    "png_header",
    "read_panoptic_png",
    "rgb_to_segment_id",
    "segment_id_to_rgb",
    "segment_index",
    "wrong_png_format",
]

VOID = 0
# The value with which newer versions of Detectron2 pad a panoptic png: 255 in each channel.
PADDING = 0xFFFFFF


def rgb_to_segment_id(rgb: np.ndarray) -> np.ndarray:
    """Return the (H, W) int32 segment ids, R + 256 G + 65536 B, of (H, W, 3) uint8 pixels."""
    if rgb.size == 0:  # OpenCV does not accept empty images
        return np.zeros(rgb.shape[:2], np.int32)
    return _four_bytes_to_id(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2RGBA))


def segment_id_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Return (..., 3) uint8 pixels of (...) integers: the reverse of :func:`rgb_to_segment_id`."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], -1).astype(np.uint8)


def _four_bytes_to_id(rgba: np.ndarray) -> np.ndarray:
    ids = rgba.view("<i4")[..., 0]
    ids &= 0xFFFFFF  # in place: a new map would take as long again
    return ids


def read_panoptic_png(path: str) -> np.ndarray:
    """Read the (H, W) int32 segment ids of a panoptic png, RGB or RGBA with 8 bits per channel.

    Alpha is ignored.

    Raises:
        FileNotFoundError: no such file.
        BadSampleError: it cannot be decoded, has another format, or claims to have more pixels
            than Pillow accepts.
    """
    with opened(path):  # OpenCV would read a gigapixel from a file of a few bytes
        pass
    with open(path, "rb") as f:
        wrong = wrong_png_format(f.read(HEADER_BYTES))
    if wrong:
        raise BadSampleError(f"{path} is {wrong}")
    bgr = cv2.imread(path, cv2.IMREAD_COLOR)  # 1.5 times as fast as PIL
    if bgr is None:
        raise BadSampleError(f"cannot read the image {path}. Is it complete?")
    return _four_bytes_to_id(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGBA))


class PngHeader(NamedTuple):
    """Bits per channel, and the colour type of the PNG standard."""

    depth: int
    color_type: int


HEADER_BYTES = 26
GREY, RGB, PALETTE, RGBA = 0, 2, 3, 6
_COLORS = {GREY: "grey", RGB: "RGB", PALETTE: "palette", 4: "grey and alpha", RGBA: "RGBA"}


def png_header(head: bytes) -> PngHeader | None:
    """Parse the first :data:`HEADER_BYTES` of a file; return None if it is not a png."""
    if len(head) < HEADER_BYTES or not head.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    return PngHeader(head[24], head[25])


def wrong_png_format(head: bytes) -> str:
    """Return why a file with this head (see :func:`png_header`) cannot hold segment ids, or ""."""
    header = png_header(head)
    if header is None:
        return "not a png; segment ids are stored as png"
    if header.depth == 8 and header.color_type in (RGB, RGBA):
        return ""
    kind = _COLORS.get(header.color_type, header.color_type)
    return f"a png with {kind} of {header.depth} bits, expected RGB of 8 bits"


def segment_index(segment_map: np.ndarray, segments_info: list[dict], path: str) -> np.ndarray:
    """Return the index of the listed segment to which each pixel belongs.

    Args:
        segment_map: (H, W) integer segment ids.
        segments_info: the segments, each with its ``id``.
        path: path of the png, for the error message.

    Returns:
        (H, W) int32: index into ``segments_info``; ``len(segments_info)`` for void.

    Raises:
        ValueError: pixels have an id that is not listed, or two segments share an id.
    """
    (ids,), lengths = find_runs(segment_map)
    index = look_up_segments(ids, segments_info, path).astype(np.int32)
    return np.repeat(index, lengths).reshape(segment_map.shape)


def find_runs(*maps: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Split the pixels, in reading order, into runs in which no map changes.

    There are far fewer runs than pixels.

    Args:
        maps: integer maps, all of the same shape.

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
    """Do the same as :func:`segment_index` for (R,) segment ids."""
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


class SegmentPixels(NamedTuple):
    """Number of pixels of a segment, and its tight box (x, y, w, h)."""

    area: int
    bbox: tuple[int, int, int, int]


def count_segments(segment_map: np.ndarray) -> dict[int, SegmentPixels]:
    """Return area and box of each value of an (H, W) integer map, including void (0).

    It works on the runs of equal pixels in a row, of which there are far fewer than pixels.
    """
    height, width = segment_map.shape
    begins = np.ones((height, width), dtype=bool)
    np.not_equal(segment_map[:, 1:], segment_map[:, :-1], out=begins[:, 1:])
    start = np.flatnonzero(begins)
    length = np.diff(np.append(start, segment_map.size))
    ids, index = np.unique(segment_map.ravel()[start], return_inverse=True)
    order = np.argsort(index, kind="stable")
    first = np.searchsorted(index[order], np.arange(len(ids)))
    row, left = np.divmod(start[order], width)
    right = left + length[order]
    areas = np.add.reduceat(length[order], first)
    x, y = np.minimum.reduceat(left, first), np.minimum.reduceat(row, first)
    w = np.maximum.reduceat(right, first) - x
    h = np.maximum.reduceat(row, first) + 1 - y
    boxes = zip(*(values.tolist() for values in (x, y, w, h)), strict=True)
    return {
        id_: SegmentPixels(area, box)
        for id_, area, box in zip(ids.tolist(), areas.tolist(), boxes, strict=True)
    }
