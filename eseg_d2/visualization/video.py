"""Colours for the objects of a video: each keeps its colour from frame to frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.utils.colormap import colormap
from pycocotools import mask as coco_mask

from eseg_d2.visualization.overlay import Color

__all__ = ["ColorTracker"]

_MIN_OVERLAP = 0.2  # intersection over union of masks or boxes
_FRAMES_REMEMBERED = 7


@dataclass
class _Tracked:
    class_id: int
    shape: object  # RLE of the mask, or x, y, width, height
    color: Color
    missed: int = 0


class ColorTracker:
    """Assigns colours to objects, frame by frame.

    An object takes the colour of an object of its class in earlier frames that it overlaps; an
    object that is missed is remembered for up to 7 frames. Objects are matched in order of
    descending overlap, so that none takes the colour of its neighbour. New objects take the colours
    of Detectron2's colour map in turn.
    """

    def __init__(self):
        self._colors = [tuple(c) for c in colormap(rgb=True, maximum=255).astype(int).tolist()]
        self._used = 0
        self._tracked: list[_Tracked] = []

    def assign(self, class_ids: Sequence[int], shapes: Sequence[np.ndarray]) -> list[Color]:
        """Return the colours of a frame's objects, RGB, 0 .. 255.

        Args:
            class_ids: classes of the N objects.
            shapes: of each its (H, W) bool mask, or its box x0, y0, x1, y1; of one kind in all
                frames.
        """
        encoded = [_encode(shape) for shape in shapes]
        found = self._match(class_ids, encoded)
        for i, (class_id, shape) in enumerate(zip(class_ids, encoded, strict=True)):
            if i not in found:
                color = self._colors[self._used % len(self._colors)]
                self._used += 1
                found[i] = _Tracked(class_id, shape, color)
            found[i].shape, found[i].missed = shape, 0
        current = [found[i] for i in range(len(encoded))]
        missed = [old for old in self._tracked if not any(old is new for new in current)]
        for old in missed:
            old.missed += 1
        remembered = [old for old in missed if old.missed <= _FRAMES_REMEMBERED]
        self._tracked = current + remembered
        return [tracked.color for tracked in current]

    def _match(self, class_ids: Sequence[int], encoded: list) -> dict[int, _Tracked]:
        """Return the remembered objects, by the index of the new object that each one matches."""
        if not self._tracked or not encoded:
            return {}
        old = [tracked.shape for tracked in self._tracked]
        overlaps = np.asarray(coco_mask.iou(old, encoded, np.zeros(len(encoded), bool)))
        same = [[a.class_id == b for b in class_ids] for a in self._tracked]
        overlaps = np.where(same, overlaps, 0)
        found, lost = {}, set(range(len(old)))
        for pair in np.argsort(-overlaps, axis=None, kind="stable").tolist():
            before, now = divmod(pair, len(encoded))
            if overlaps[before, now] < _MIN_OVERLAP:
                break
            if before in lost and now not in found:
                found[now] = self._tracked[before]
                lost.remove(before)
        return found


def _encode(shape: np.ndarray):
    if shape.ndim == 2:
        return coco_mask.encode(np.asfortranarray(shape, np.uint8))
    x0, y0, x1, y1 = (float(v) for v in shape)
    return [x0, y0, x1 - x0, y1 - y0]
