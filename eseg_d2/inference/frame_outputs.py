"""Write and show the results of a video, frame by frame."""

import json
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from eseg_d2.inference.classes import ClassTable
from eseg_d2.inference.drawing import FrameDrawer, draw_beside
from eseg_d2.inference.outputs import write_label_map
from eseg_d2.inference.prediction import Prediction
from eseg_d2.inference.video import VideoWriter

__all__ = ["FrameOutputs"]


class FrameOutputs:
    """A context manager that writes the results of one video to the paths of ``plan_outputs``.

    Overlays and side-by-side pictures are videos, label maps a folder of pngs named after the
    frame's index, and the json has a line for each frame, with ``frame`` (index) and ``time``
    (seconds).
    """

    def __init__(
        self, paths: dict[str, Path], classes: ClassTable, *, fps: Fraction, stride: int, show=None
    ):
        """
        Args:
            paths: paths by result.
            classes: classes of the model.
            fps: frames per second of the input.
            stride: step between the frames; the output has ``fps / stride``, to play as fast.
            show: called with each overlay, (H, W, 3) uint8 RGB, if not None.
        """
        self._paths, self._classes, self._fps, self._show = paths, classes, fps, show
        self._drawer = FrameDrawer(classes)
        self._stack = ExitStack()
        self._videos = {
            result: self._stack.enter_context(VideoWriter(paths[result], fps / stride))
            for result in ("overlay", "side_by_side")
            if result in paths
        }
        self._lines = None
        if "json" in paths:
            self._lines = self._stack.enter_context(paths["json"].open("w"))
        if "labels" in paths:
            paths["labels"].mkdir(exist_ok=True)

    def write(self, index: int, frame: np.ndarray, prediction: Prediction) -> None:
        """Write the results of a frame.

        Args:
            index: index of the frame in the video, from 0.
            frame: (H, W, 3) uint8 BGR.
            prediction: prediction for the frame.
        """
        if self._lines:
            where = {"frame": index, "time": round(float(index / self._fps), 6)}
            self._lines.write(json.dumps({**where, **prediction.as_dict()}, sort_keys=True) + "\n")
        if "labels" in self._paths:
            path = self._paths["labels"] / f"{index:06d}.png"
            write_label_map(path, prediction.label_map(), self._classes)
        if not self._videos and self._show is None:
            return
        overlay = self._drawer(frame, prediction)
        if "overlay" in self._videos:
            self._videos["overlay"].write(overlay)
        if "side_by_side" in self._videos:
            self._videos["side_by_side"].write(draw_beside(frame, overlay))
        if self._show is not None:
            self._show(overlay)

    def describe(self) -> list[str]:
        """Return a line for each output."""
        videos = [video.describe() for video in self._videos.values() if video.num_frames]
        return videos + [f"{p}" for result, p in self._paths.items() if result not in self._videos]

    def __enter__(self) -> "FrameOutputs":
        return self

    def __exit__(self, *error) -> None:
        self._stack.__exit__(*error)
