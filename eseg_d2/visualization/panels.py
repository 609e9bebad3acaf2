"""Overlays by Detectron2's Visualizer, set side by side with captions."""

import numpy as np
import torch
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, Visualizer
from PIL import Image, ImageDraw, ImageFont

__all__ = ["contact_sheet", "draw_instances", "draw_panoptic", "draw_semantic", "side_by_side"]

_MARGIN = 6
_CAPTION = 20


def draw_panoptic(
    image: np.ndarray,
    segment_map: np.ndarray,
    segments_info: list[dict],
    metadata,
    *,
    width: int = 640,
) -> np.ndarray:
    """Draw panoptic segments over an image, in the data set's colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        segment_map: (H, W) segment ids; 0 is void.
        segments_info: with ``id``, ``category_id`` (contiguous id) and ``isthing``. Segments
            without a pixel are left out.
        metadata: the data set's.
        width: of the picture in pixels; small images are enlarged so that labels can be read.

    Returns:
        (round(H * width / W), width, 3) uint8 RGB.
    """
    present = set(np.unique(segment_map).tolist())
    segments = [s for s in segments_info if s["id"] in present]
    visualizer = _visualizer(image, metadata, width)
    segment_map = torch.as_tensor(np.asarray(segment_map, dtype=np.int64))
    drawn = visualizer.draw_panoptic_seg(segment_map, segments, area_threshold=0, alpha=0.6)
    return resize(drawn.get_image(), width)


def draw_semantic(image: np.ndarray, labels: np.ndarray, metadata, *, width: int) -> np.ndarray:
    """Draw a label map over an image, in the data set's colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) class ids; ids without a name are left out.
        metadata: with ``stuff_classes`` and ``stuff_colors`` by class id.
        width: of the picture in pixels.

    Returns:
        (round(H * width / W), width, 3) uint8 RGB.
    """
    drawn = _visualizer(image, metadata, width).draw_sem_seg(labels, area_threshold=0, alpha=0.6)
    return resize(drawn.get_image(), width)


def draw_instances(image: np.ndarray, instances: Instances, metadata, *, width: int) -> np.ndarray:
    """Draw objects over an image: masks if there are any, and boxes.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: on the CPU, with ``pred_boxes``, ``scores``, ``pred_classes`` and optionally
            ``pred_masks``.
        metadata: with ``thing_classes`` and ``thing_colors`` by class id.
        width: of the picture in pixels.

    Returns:
        (round(H * width / W), width, 3) uint8 RGB.
    """
    drawn = _visualizer(image, metadata, width).draw_instance_predictions(instances)
    return resize(drawn.get_image(), width)


def _visualizer(image: np.ndarray, metadata, width: int) -> Visualizer:
    scale = width / image.shape[1]
    return Visualizer(image, metadata, scale=scale, instance_mode=ColorMode.SEGMENTATION)


def resize(image: np.ndarray, width: int, height: int | None = None) -> np.ndarray:
    """An (H, W, 3) uint8 image in another width, its aspect kept if no height is given."""
    height = height or max(round(image.shape[0] * width / image.shape[1]), 1)
    resample = Image.Resampling.NEAREST if width > image.shape[1] else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize((width, height), resample))


def side_by_side(panels: dict[str, np.ndarray]) -> np.ndarray:
    """One row of pictures with their captions above.

    Args:
        panels: (H, W, 3) uint8 RGB by caption; all of one height.
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


def contact_sheet(rows: list[np.ndarray], width: int = 1400) -> np.ndarray:
    """Pictures below each other, each scaled to one width.

    Args:
        rows: (H, W, 3) uint8 RGB, at least one.
        width: of the sheet in pixels.
    """
    return np.concatenate([resize(row, width) for row in rows])
