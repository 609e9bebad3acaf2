"""Draw predictions over images and video frames."""

import numpy as np

from eseg_d2.inference.prediction import ClassTable, Prediction
from eseg_d2.visualization.overlay import Color
from eseg_d2.visualization.panels import (
    draw_instances,
    draw_panoptic,
    draw_semantic,
    resize,
    side_by_side,
)
from eseg_d2.visualization.video import ColorTracker

__all__ = ["FrameDrawer", "draw_beside", "draw_prediction"]

# Limits of a picture's longer side in pixels: labels on smaller ones are not legible
_SMALLEST, _LARGEST = 640, 4096


def draw_prediction(image: np.ndarray, prediction: Prediction, classes: ClassTable) -> np.ndarray:
    """Draw a prediction over its (H, W, 3) uint8 BGR image.

    Returns:
        (h, w, 3) uint8 RGB, in the image's size, or resized so that its longer side has 640 to
        4096 pixels.
    """
    longer = max(prediction.size)
    scale = min(max(longer, _SMALLEST), _LARGEST) / longer
    width = max(round(prediction.size[1] * scale), 1)
    return _draw(image, prediction, classes, width)


def draw_beside(image: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """Return the image (BGR) and its overlay (RGB) side by side in the overlay's size, as RGB."""
    plain = resize(image[:, :, ::-1], *overlay.shape[1::-1])
    return side_by_side({"input": plain, "prediction": overlay})


class FrameDrawer:
    """Draws the predictions of a video's frames in turn; each object keeps its colour."""

    def __init__(self, classes: ClassTable):
        self._classes, self._tracker = classes, ColorTracker()

    def __call__(self, frame: np.ndarray, prediction: Prediction) -> np.ndarray:
        """Draw the prediction of the next (H, W, 3) uint8 BGR frame; return uint8 RGB."""
        objects = [segment for segment in prediction.segments if segment["isthing"]]
        found = prediction.instances
        if found is not None and found.crops is None:
            shapes = list(found.boxes)
        else:
            masks = map(prediction.mask, objects)
            shapes = [mask for mask in masks if mask is not None]
        assigned = self._tracker.assign([segment["class_id"] for segment in objects], shapes)
        colors = {s["id"]: color for s, color in zip(objects, assigned, strict=True)}
        return _draw(frame, prediction, self._classes, prediction.size[1], colors)


def _draw(
    image: np.ndarray,
    prediction: Prediction,
    classes: ClassTable,
    width: int,
    colors: dict[int, Color] | None = None,
) -> np.ndarray:
    """Draw a prediction; ``colors`` by segment id replace those of the objects' classes."""
    rgb, metadata = image[:, :, ::-1], classes.drawing_metadata()
    if prediction.panoptic is not None:
        info = [{**s, "category_id": s["class_id"]} for s in prediction.segments]
        return draw_panoptic(rgb, prediction.panoptic, info, metadata, width=width, colors=colors)
    found = prediction.instances
    if found is None:
        assert prediction.semantic is not None  # it is there if the others are not
        return draw_semantic(rgb, prediction.semantic, metadata, width=width)
    return draw_instances(
        rgb,
        boxes=found.boxes if found.crops is None else None,
        masks=found.masks,
        texts=[f"{s['class_name']} {s['score']:.0%}" for s in prediction.segments],
        colors=[
            (colors or {}).get(s["id"], classes.colors[s["class_id"]]) for s in prediction.segments
        ],
        width=width,
    )
