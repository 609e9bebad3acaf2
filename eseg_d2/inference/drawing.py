"""Pictures of predictions: overlays of images and of video frames."""

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from eseg_d2.inference.classes import ClassTable
from eseg_d2.inference.convert import resize_nearest
from eseg_d2.inference.prediction import Prediction
from eseg_d2.visualization.panels import (
    draw_instances,
    draw_panoptic,
    draw_semantic,
    resize,
    side_by_side,
)
from eseg_d2.visualization.video import TrackingVisualizer

__all__ = ["FrameDrawer", "draw_beside", "draw_prediction"]

# The longer side of a picture in pixels: labels on smaller ones cannot be read, and larger ones
# take gigabytes to draw
_SMALLEST, _LARGEST = 640, 4096


def draw_prediction(image: np.ndarray, prediction: Prediction, classes: ClassTable) -> np.ndarray:
    """Draw a prediction over its image.

    Args:
        image: (H, W, 3) uint8 BGR.
        prediction: of that image.
        classes: of the model.

    Returns:
        (h, w, 3) uint8 RGB, of the image's size, or enlarged or reduced so that its longer side
        has 640 to 4096 pixels.
    """
    longer = max(prediction.size)
    scale = min(max(longer, _SMALLEST), _LARGEST) / longer
    size = tuple(max(round(side * min(scale, 1)), 1) for side in prediction.size)
    rgb = _resize_to(image[:, :, ::-1], size)
    width = max(round(prediction.size[1] * scale), 1)
    metadata = classes.drawing_metadata()
    if prediction.kind == "panoptic":
        panoptic = resize_nearest(prediction.panoptic, size)
        return draw_panoptic(rgb, panoptic, _segments_info(prediction), metadata, width=width)
    if prediction.kind == "semantic":
        semantic = resize_nearest(prediction.semantic, size)
        return draw_semantic(rgb, semantic, metadata, width=width)
    return draw_instances(rgb, _to_detectron2(prediction, size), metadata, width=width)


def draw_beside(image: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """The image (BGR) and its overlay (RGB) side by side, in the overlay's size; RGB."""
    plain = _resize_to(image[:, :, ::-1], overlay.shape[:2])
    return side_by_side({"input": plain, "prediction": overlay})


class FrameDrawer:
    """Draws the predictions of a video's frames, one after the other."""

    def __init__(self, classes: ClassTable):
        self._visualizer = TrackingVisualizer(classes.drawing_metadata())

    def __call__(self, frame: np.ndarray, prediction: Prediction) -> np.ndarray:
        """
        Args:
            frame: (H, W, 3) uint8 BGR.
            prediction: of it.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        rgb = np.ascontiguousarray(frame[:, :, ::-1])
        if prediction.kind == "panoptic":
            panoptic = torch.from_numpy(prediction.panoptic.astype(np.int64))
            info = _segments_info(prediction)
            drawn = self._visualizer.draw_panoptic_seg_predictions(rgb, panoptic, info)
        elif prediction.kind == "semantic":
            drawn = self._visualizer.draw_sem_seg(rgb, prediction.semantic)
        else:
            instances = _to_detectron2(prediction, prediction.size)
            drawn = self._visualizer.draw_instance_predictions(rgb, instances)
        return _resize_to(drawn.get_image(), prediction.size)


def _segments_info(prediction: Prediction) -> list[dict]:
    info = []
    for segment in prediction.segments:
        entry = {"id": segment["id"], "category_id": segment["class_id"]}
        score = {} if segment["score"] is None else {"score": segment["score"]}
        info.append({**entry, **score, "isthing": segment["isthing"]})
    return info


def _to_detectron2(prediction: Prediction, size: tuple[int, int]) -> Instances:
    found = prediction.instances
    scale = np.array([size[1] / prediction.size[1], size[0] / prediction.size[0]] * 2, np.float32)
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.from_numpy(found.boxes * scale))
    instances.scores = torch.from_numpy(found.scores)
    instances.pred_classes = torch.from_numpy(found.classes)
    if found.masks is not None:
        instances.pred_masks = torch.from_numpy(resize_nearest(found.masks, size))
    return instances


def _resize_to(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == tuple(size):
        return np.ascontiguousarray(image)
    return resize(np.ascontiguousarray(image), size[1], size[0])
