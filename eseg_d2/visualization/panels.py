"""Overlays of panoptic, semantic and instance results, and sheets of pictures with captions."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.utils.colormap import colormap
from PIL import Image, ImageDraw, ImageFont

from eseg_d2.visualization.overlay import Color, Segment, paint_segments, resize

__all__ = [
    "class_color",
    "contact_sheet",
    "data_uri",
    "draw_instances",
    "draw_panoptic",
    "draw_semantic",
    "resize",
    "side_by_side",
]

_MARGIN = 6
_CAPTION = 20
_SHADES = (0.0, 0.35, 0.6)  # how much lighter consecutive objects of a class are drawn


def draw_panoptic(
    image: np.ndarray,
    segment_map: np.ndarray,
    segments_info: Sequence[dict],
    metadata: Metadata,
    *,
    width: int = 640,
    colors: Mapping[int, Color] | None = None,
) -> np.ndarray:
    """Draw panoptic segments over an image, in the data set's colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        segment_map: (H, W) segment ids; 0 is void.
        segments_info: with ``id``, ``category_id`` (contiguous id), ``isthing`` and optionally
            ``score`` and ``iscrowd``. Segments without pixels are left out.
        metadata: metadata of the data set.
        width: width of the picture in pixels; enlarging small images keeps labels legible.
        colors: colours by segment id that replace those of the data set.

    Returns:
        (round(H * width / W), width, 3) uint8 RGB.
    """
    segments = []
    seen: Counter[int] = Counter()
    for info in segments_info:
        kind, category = ("thing" if info["isthing"] else "stuff"), info["category_id"]
        color = class_color(metadata, kind, category)
        if info["isthing"]:
            color = _shade(color, seen[category])
            seen[category] += 1
        color = (colors or {}).get(info["id"], color)
        text = metadata.get(f"{kind}_classes")[category]
        if info.get("score") is not None:
            text += f" {info['score']:.0%}"
        segments.append(Segment(f"{text} (crowd)" if info.get("iscrowd") else text, color))
    numbers = np.zeros(int(segment_map.max(initial=0)) + 1, np.uint16)
    for n, info in enumerate(segments_info, start=1):
        if info["id"] < len(numbers):
            numbers[info["id"]] = n
    return paint_segments(image, numbers[segment_map], segments, width=width)


def draw_semantic(
    image: np.ndarray, labels: np.ndarray, metadata: Metadata, *, width: int
) -> np.ndarray:
    """Draw a label map over an image, in the data set's colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) class ids; ids without a name are left out.
        metadata: with ``stuff_classes`` and ``stuff_colors`` by class id.
        width: width of the picture in pixels.

    Returns:
        (round(H * width / W), width, 3) uint8 RGB.
    """
    names = metadata.stuff_classes
    segments = [Segment(name, class_color(metadata, "stuff", c)) for c, name in enumerate(names)]
    index = np.where(labels < len(names), labels.astype(np.uint16) + 1, 0)
    return paint_segments(image, index, segments, width=width)


def draw_instances(
    image: np.ndarray,
    *,
    boxes: np.ndarray | None,
    masks: np.ndarray | None,
    texts: Sequence[str],
    colors: Sequence[Color],
    width: int,
) -> np.ndarray:
    """Draw objects over an image, smaller ones over larger ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) x0, y0, x1, y1 in pixels, drawn as rectangles; None for no rectangles.
        masks: (N, H, W) bool, or None.
        texts, colors: labels and colours of the N objects.
        width: width of the picture in pixels.

    Returns:
        (round(H * width / W), width, 3) uint8 RGB.
    """
    index = np.zeros(image.shape[:2], np.uint16)
    if masks is not None:
        for i in np.argsort([-int(mask.sum()) for mask in masks], kind="stable").tolist():
            index[masks[i]] = i + 1
    segments = [
        Segment(text, color, None if boxes is None else boxes[i])
        for i, (text, color) in enumerate(zip(texts, colors, strict=True))
    ]
    return paint_segments(image, index, segments, width=width, alpha=0.5)


def class_color(metadata: Metadata, kind: str, category: int) -> Color:
    """Return the colour of a class: the data set's, or one of Detectron2's colour map.

    The kind is "thing" or "stuff", the category a contiguous id.
    """
    known = metadata.get(f"{kind}_colors") or ()
    if category >= len(known):
        known = colormap(rgb=True, maximum=255)
    red, green, blue = (int(v) for v in known[category % len(known)])
    return red, green, blue


def _shade(color: Color, number: int) -> Color:
    part = _SHADES[number % len(_SHADES)]
    red, green, blue = (round(v + part * (255 - v)) for v in color)
    return red, green, blue


def side_by_side(panels: dict[str, np.ndarray]) -> np.ndarray:
    """Return a row of pictures with their captions above.

    Args:
        panels: (H, W, 3) uint8 RGB by caption, all of the same height.

    Raises:
        ValueError: the heights differ.
    """
    heights = {panel.shape[0] for panel in panels.values()}
    if len(heights) != 1:
        raise ValueError(f"panels have the heights {sorted(heights)}; they must be equal")
    total = sum(panel.shape[1] + _MARGIN for panel in panels.values()) + _MARGIN
    canvas = Image.new("RGB", (total, heights.pop() + _CAPTION + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    x = _MARGIN
    for caption, panel in panels.items():
        draw.text((x, _MARGIN // 2), caption, fill="black", font=ImageFont.load_default(14))
        canvas.paste(Image.fromarray(panel), (x, _CAPTION + _MARGIN))
        x += panel.shape[1] + _MARGIN
    return np.asarray(canvas)


def contact_sheet(
    pictures: Sequence[np.ndarray], *, width: int = 1600, height: int = 1000
) -> np.ndarray:
    """Return pictures in a grid that fits on a screen, as large as possible.

    Args:
        pictures: (H, W, 3) uint8 RGB, at least one; smaller ones leave a margin.
        width, height: largest size of the sheet in pixels.
    """
    tall, wide = (max(picture.shape[i] for picture in pictures) for i in (0, 1))

    def scale(columns: int) -> float:
        return min(width / (columns * wide), height / (-(-len(pictures) // columns) * tall), 1)

    columns = max(range(1, len(pictures) + 1), key=scale)
    factor, rows = scale(columns), -(-len(pictures) // columns)
    cell = int(wide * factor), int(tall * factor)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    for i, picture in enumerate(pictures):
        small = resize(picture, *(max(int(side * factor), 1) for side in picture.shape[1::-1]))
        place = i % columns * cell[0], i // columns * cell[1]
        sheet.paste(Image.fromarray(small), place)
    return np.asarray(sheet)


def data_uri(image: np.ndarray, quality: int = 90) -> str:
    """Return an (H, W, 3) uint8 RGB image as the source of an ``<img>``: a JPEG in it."""
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
