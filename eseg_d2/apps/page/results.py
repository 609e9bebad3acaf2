"""Pictures and files of a prediction: thumbnails, downloads, and the context of a pixel."""

import tempfile
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from eseg_d2.inference.outputs import plan_outputs, save_prediction
from eseg_d2.inference.prediction import ClassTable, Prediction
from eseg_d2.inference.sources import Source
from eseg_d2.visualization import relation
from eseg_d2.visualization.panels import resize

__all__ = ["DOWNLOADS", "has_label_map", "level_maps", "make_download", "reduce"]

# by the name of a download: its label, and which of eseg_d2.inference.outputs.RESULTS it holds
DOWNLOADS = {
    "overlay": ("Overlay", ["overlay"]),
    "labels": ("Label map", ["labels"]),
    "json": ("Segments (json)", ["json"]),
    "zip": ("All (zip)", ["overlay", "labels", "json"]),
}


def reduce(image: np.ndarray, longest: int) -> np.ndarray:
    """Reduce an (H, W, 3) uint8 image so that its longer side has at most ``longest`` pixels."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    return resize(np.ascontiguousarray(image), width, height)


def make_download(
    image: np.ndarray, prediction: Prediction, classes: ClassTable, name: str, what: str
) -> tuple[str, bytes]:
    """Return the name and content of a file, made by the code that `demo/demo.py --save` runs.

    Args:
        image: (H, W, 3) uint8 BGR.
        name: the start of the file's name.
        what: a key of ``DOWNLOADS``; "zip" holds all that this model gives.

    Raises:
        ValueError: the prediction has no label map.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Source("", name, is_video=False)
        paths = plan_outputs(Path(folder), [source], DOWNLOADS[what][1])[source.path]
        if "overlay" in paths:
            paths["overlay"] = paths["overlay"].with_suffix(".png")
        if what == "zip" and not has_label_map(prediction):
            del paths["labels"]
        save_prediction(image, prediction, classes, paths, file_name=name)
        if what != "zip":
            (path,) = paths.values()
            return path.name, path.read_bytes()
        file = BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths.values():
                archive.write(path, path.name)
        return f"{name}.zip", file.getvalue()


def has_label_map(prediction: Prediction) -> bool:
    """Whether there is a label map: not for boxes alone, or for more classes than a png holds."""
    try:
        prediction.label_map()
    except ValueError:
        return False
    return True


def level_maps(
    image_size: tuple[int, int],
    pixel: tuple[int, int],
    weights: Sequence[torch.Tensor],
    seen: tuple[int, int],
    stride: int,
) -> list[dict]:
    """Return where a pixel takes its context from, level by level.

    Args:
        image_size: (H, W) of the image.
        pixel: (row, column) in it.
        weights: relation weights by level, from the lowest.
        seen: (H, W) of the image as the model saw it.
        stride: of the lowest level.

    Returns:
        For each level, ready for json: ``text``, ``cells`` (row, column and share of the context
        of each cell that contributes; the shares sum to 1), ``cell`` (height and width of a cell in
        pixels of the image) and ``window`` (top, bottom, left and right of the part to show).
    """
    maps, strides = relation.pixel_context(weights, pixel, image_size, seen, stride)
    levels = []
    for share, level in zip(maps, strides, strict=True):
        cell = level * image_size[0] / seen[0], level * image_size[1] / seen[1]
        cells = [[int(r), int(c), float(share[r, c])] for r, c in np.argwhere(share > 0)]
        size = round(cell[0])  # the model may have seen the image smaller
        levels.append(
            {
                "text": f"Stride {level}: {len(cells)} cells of about {size} x {size} pixels",
                "cells": cells,
                "cell": cell,
                "window": [float(side) for side in relation.window(share, cell, image_size)],
            }
        )
    return levels
