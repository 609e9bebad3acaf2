"""Paint segments over an image in their colours, with legible labels."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Color", "Segment", "paint_segments", "resize"]

Color = tuple[int, int, int]  # RGB, 0 .. 255
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom excluded

_EDGE: Color = (255, 255, 240)
_LABELLING_SIDE = 640  # longer side in pixels of the map in which labels are placed


class Segment(NamedTuple):
    """How a segment is painted.

    Attributes:
        text: label.
        color: RGB, 0 .. 255.
        box: x0, y0, x1, y1 in pixels of the image, drawn as a rectangle; None for no rectangle.
    """

    text: str
    color: Color
    box: Sequence[float] | None = None


def paint_segments(
    image: np.ndarray,
    index: np.ndarray,
    segments: Sequence[Segment],
    *,
    width: int,
    alpha: float = 0.6,
) -> np.ndarray:
    """Paint segments over an image, with edges and labels.

    Labels are black or white, whichever is more legible, on a box in the segment's colour, and lie
    within the picture. Where labels would overlap, that of the smaller segment is moved aside or
    left out.

    Args:
        image: (H, W, 3) uint8 RGB.
        index: (H, W) integers: 0 is no segment, n is ``segments[n - 1]``.
        segments: at most 65535.
        width: width of the picture in pixels.
        alpha: opacity of the colours, 0 .. 1.

    Returns:
        (round(H * width / W), width, 3) uint8 RGB.
    """
    scale = width / image.shape[1]
    picture = resize(image, width)
    height = picture.shape[0]
    index = _resize_index(index, width, height)
    colors = np.array([(0, 0, 0), *(s.color for s in segments)], np.uint8)
    painted = cv2.addWeighted(picture, 1 - alpha, colors[index], alpha, 0)
    np.copyto(painted, picture, where=(index == 0)[:, :, None])
    line = max(round((height * width) ** 0.5 / 700), 1)
    painted[_edges(index, line)] = _EDGE
    boxes = {}
    for n, segment in enumerate(segments, start=1):
        if segment.box is not None:
            x0, y0, x1, y1 = boxes[n] = tuple(round(float(v) * scale) for v in segment.box)
            cv2.rectangle(painted, (x0, y0), (x1 - 1, y1 - 1), segment.color, line)
    return _draw_labels(painted, index, segments, boxes)


def resize(image: np.ndarray, width: int, height: int | None = None) -> np.ndarray:
    """Return an (H, W, 3) uint8 image resized; without a height, its aspect ratio is kept."""
    height = height or max(round(image.shape[0] * width / image.shape[1]), 1)
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    resample = Image.Resampling.NEAREST if width > image.shape[1] else Image.Resampling.LANCZOS
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((width, height), resample))


def _resize_index(index: np.ndarray, width: int, height: int) -> np.ndarray:
    size = (width, height)
    return cv2.resize(index.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST_EXACT)


def _edges(index: np.ndarray, line: int) -> np.ndarray:
    """Return (H, W) bool: where one segment meets another."""
    edges = np.zeros(index.shape, np.uint8)
    edges[:, 1:] |= index[:, 1:] != index[:, :-1]
    edges[1:] |= index[1:] != index[:-1]
    if line > 1:
        edges = cv2.dilate(edges, np.ones((line, line), np.uint8))
    return edges.view(bool)


def _draw_labels(
    painted: np.ndarray,
    index: np.ndarray,
    segments: Sequence[Segment],
    boxes: dict[int, Box],
) -> np.ndarray:
    canvas = Image.fromarray(painted)
    draw = ImageDraw.Draw(canvas)
    height, width = index.shape
    font = _font(max(round((height * width) ** 0.5 / 65), 12))
    taken: list[Box] = []
    for n, box, anchor in _by_area(index, boxes):
        text = segments[n - 1].text
        left, top, right, bottom = map(round, draw.textbbox((0, 0), text, font=font))
        pad = max((bottom - top) // 5, 2)
        size = (right - left + 2 * pad, bottom - top + 2 * pad)
        place = _free_place(size, box, anchor, (width, height), taken)
        if place is None:
            continue
        taken.append(place)
        color = segments[n - 1].color
        draw.rectangle((*place[:2], place[2] - 1, place[3] - 1), fill=color)
        start = place[0] + pad - left, place[1] + pad - top
        draw.text(start, text, fill=_readable_on(color), font=font)
    return np.asarray(canvas)


def _by_area(index: np.ndarray, boxes: dict[int, Box]):
    """Yield the number, bounding box and innermost pixel (x, y) of each segment, largest first.

    For a segment that has only a box, from a model without masks, the pixel is None.
    """
    scale = max(max(index.shape) / _LABELLING_SIDE, 1)
    height, width = (max(round(side / scale), 1) for side in index.shape)
    small = _resize_index(index, width, height)
    counts = dict(enumerate(np.bincount(small.ravel())[1:].tolist(), start=1))
    areas = {n: count for n, count in counts.items() if count}
    for n, (x0, y0, x1, y1) in boxes.items():
        areas.setdefault(n, (x1 - x0) * (y1 - y0) / scale**2)
    for n in sorted(areas, key=areas.__getitem__, reverse=True):
        if not counts.get(n):
            yield n, boxes[n], None
            continue
        mask = (small == n).view(np.uint8)
        x, y, w, h = cv2.boundingRect(mask)
        inside = np.pad(mask[y : y + h, x : x + w], 1)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        box = boxes.get(n) or tuple(round(v * scale) for v in (x, y, x + w, y + h))
        yield n, box, (round((x + column + 0.5) * scale), round((y + row + 0.5) * scale))


def _free_place(
    size: tuple[int, int],
    box: Box,
    anchor: tuple[int, int] | None,
    picture: tuple[int, int],
    taken: Sequence[Box],
) -> Box | None:
    """Return a place for a label of a size (width, height), in the picture and over no other."""
    (w, h), (x0, y0, x1, y1) = size, box
    if w > picture[0] or h > picture[1]:
        return None
    beside = [(x0, y0 - h), (x0, y1), (x1, y0), (x0 - w, y0)]
    if anchor is None:
        places = [(x0, y0), *beside]
    else:
        x, y = anchor[0] - w // 2, anchor[1] - h // 2
        within = [(x, y), (x, y - h), (x, y + h)]
        # a label in the middle of a small object would hide it
        places = [*beside, *within] if w * h > (x1 - x0) * (y1 - y0) / 3 else [*within, *beside]
    for x, y in places:
        x, y = min(max(x, 0), picture[0] - w), min(max(y, 0), picture[1] - h)
        place = (x, y, x + w, y + h)
        if not any(_overlap(place, other) for other in taken):
            return place
    return None


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _readable_on(color: Color) -> Color:
    """Return black or white, whichever has the higher WCAG contrast (at least 4.5)."""
    linear = [(c / 255 + 0.055) ** 2.4 / 1.055**2.4 if c > 10 else c / 255 / 12.92 for c in color]
    luminance = np.dot(linear, (0.2126, 0.7152, 0.0722))
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return Matplotlib's font, since Pillow's has only Latin letters."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
