"""Overlays on the frames of a video: an object keeps its colour from frame to frame."""

import numpy as np
from detectron2.utils.video_visualizer import VideoVisualizer

__all__ = ["TrackingVisualizer"]


class TrackingVisualizer(VideoVisualizer):
    """Detectron2's ``VideoVisualizer``, which finds objects again by how much they overlap.

    Its boxes are x0, y0, x1, y1, but the overlap is computed as of x, y, width, height: two cars
    beside each other count as one, and take each other's colours. Here boxes are converted first.
    """

    def _assign_colors(self, instances):
        for instance in instances:
            if instance.bbox is not None:
                x0, y0, x1, y1 = np.asarray(instance.bbox, np.float64)
                instance.bbox = np.array([x0, y0, x1 - x0, y1 - y0])
        return super()._assign_colors(instances)
