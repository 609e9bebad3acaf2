"""Overlays on the frames of a video: an object keeps its colour from frame to frame."""

import numpy as np
from detectron2.utils.colormap import random_color
from detectron2.utils.video_visualizer import VideoVisualizer
from pycocotools import mask as coco_mask

__all__ = ["TrackingVisualizer"]

_MIN_OVERLAP = 0.2  # of masks or boxes, intersection over union


class TrackingVisualizer(VideoVisualizer):
    """Detectron2's ``VideoVisualizer`` with another way to find objects again.

    As there, an object takes the colour of one of its class in the frames before that it overlaps,
    and one that is missed for up to 7 frames is remembered. Different are: pairs are made by
    descending overlap, so that no object takes the colour of its neighbour; an overlap of 0.2
    suffices (there 0.5 or 0.6), since things move and masks flicker; and boxes x0, y0, x1, y1 are
    not compared as if they were x, y, width, height.
    """

    def _assign_colors(self, instances):
        overlaps = _overlaps(self._old_instances, instances)
        lost = set(range(len(self._old_instances)))
        for pair in np.argsort(-overlaps, axis=None, kind="stable").tolist():
            old, new = divmod(pair, len(instances))
            if overlaps[old, new] < _MIN_OVERLAP:
                break
            if old in lost and instances[new].color is None:
                instances[new].color = self._old_instances[old].color
                lost.remove(old)
        for instance in instances:
            if instance.color is None:
                instance.color = random_color(rgb=True, maximum=1)
        remembered = [self._old_instances[i] for i in sorted(lost)]
        for instance in remembered:
            instance.ttl -= 1
        self._old_instances = instances[:] + [i for i in remembered if i.ttl > 0]
        return [instance.color for instance in instances]


def _overlaps(old: list, new: list) -> np.ndarray:
    """(old, new) intersection over union; 0 between objects of different classes."""
    if not old or not new:
        return np.zeros((len(old), len(new)))
    shapes = [[_shape(instance) for instance in instances] for instances in (old, new)]
    overlaps = np.asarray(coco_mask.iou(*shapes, np.zeros(len(new), bool)))
    same = np.array([[a.label == b.label for b in new] for a in old])
    return np.where(same, overlaps, 0)


def _shape(instance):
    """Its mask, or its box as x, y, width, height."""
    if instance.bbox is None:
        return instance.mask_rle
    x0, y0, x1, y1 = (float(v) for v in instance.bbox)
    return [x0, y0, x1 - x0, y1 - y0]
