"""Plan where the results of sources go, and write those of images and of videos."""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from eseg_d2.data.images import IMAGE_SUFFIXES
from eseg_d2.inference.drawing import FrameDrawer, draw_beside, draw_prediction
from eseg_d2.inference.prediction import ClassTable, Prediction
from eseg_d2.inference.sources import VIDEO_SUFFIXES, Source
from eseg_d2.inference.video import VideoWriter
from eseg_d2.utils.files import write_image
from eseg_d2.utils.json_yaml import write_json

__all__ = ["FrameOutputs", "RESULTS", "plan_outputs", "save_prediction", "write_label_map"]

RESULTS = ("overlay", "side_by_side", "labels", "json")
# Suffixes of the file of a result, of which the first is the default. Labels of a video are a
# folder of pngs; its json has a line for each frame.
_OF_IMAGE = {
    "overlay": (".jpg", ".png"),
    "side_by_side": (".jpg", ".png"),
    "labels": (".png",),
    "json": (".json",),
}
_OF_VIDEO = {
    "overlay": (".mp4", ".mkv", ".webm"),
    "side_by_side": (".mp4", ".mkv", ".webm"),
    "labels": (),
    "json": (".jsonl",),
}
_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES | {".json", ".jsonl"}


def plan_outputs(
    output: Path, sources: Sequence[Source], results: Sequence[str]
) -> dict[str, dict[str, Path]]:
    """Plan the file of each result of each source, and create the folder.

    Args:
        output: a folder; or, for one result of one source, a file (a name with the suffix of an
            image, video or json that is not a folder).
        sources: sources of the run.
        results: any of ``RESULTS``.

    Returns:
        The file by the source's path and the result; for a video's label maps, the folder.

    Raises:
        ValueError: ``output`` is one file for several results or has a wrong suffix, or an input
            would be overwritten.
    """
    if output.suffix.lower() in _SUFFIXES and not output.is_dir():
        plan = {sources[0].path: _one_file(output, sources, results)}
        folder = output.absolute().parent
    else:
        plan, folder = {}, output
        for source in sources:
            plan[source.path] = {r: output / _name(source, r) for r in results}
    inputs = {os.path.realpath(source.path) for source in sources}
    for paths in plan.values():
        for path in paths.values():
            if os.path.realpath(path) in inputs:
                raise ValueError(f"{path} is one of the inputs: choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as e:
        raise ValueError(f"--output {output}: {e.filename} is a file, not a folder") from e
    return plan


def _suffixes(source: Source, result: str) -> tuple[str, ...]:
    return (_OF_VIDEO if source.is_video else _OF_IMAGE)[result]


def _name(source: Source, result: str) -> str:
    (suffix, *_) = _suffixes(source, result) or ("",)
    return f"{source.name}_{'segments' if result == 'json' else result}{suffix}"


def _one_file(output: Path, sources: Sequence[Source], results: Sequence[str]) -> dict[str, Path]:
    if len(sources) > 1 or len(results) > 1:
        raise ValueError(
            f"--output {output} is a file, but there are {len(sources)} inputs with "
            f"{len(results)} results each: give a folder"
        )
    suffixes = _suffixes(sources[0], results[0])
    if output.suffix.lower() not in suffixes:
        kind = "a video" if sources[0].is_video else "an image"
        expected = f"a file ending in {' or '.join(suffixes)}" if suffixes else "a folder"
        raise ValueError(
            f"--output {output}: expected {expected} for the {results[0]} of {kind} (a name "
            "without a suffix is a folder)"
        )
    return {results[0]: output}


def save_prediction(
    image: np.ndarray,
    prediction: Prediction,
    classes: ClassTable,
    paths: dict[str, Path],
    *,
    file_name: str,
) -> None:
    """Write the results of an image.

    Args:
        image: (H, W, 3) uint8 BGR.
        prediction, classes: of the image and of the model.
        paths: by result, from :func:`plan_outputs`.
        file_name: name of the image in the json.

    Raises:
        ValueError: the prediction has no label map.
        OSError: a file cannot be written.
    """
    if "json" in paths:
        write_json(paths["json"], {"file_name": file_name, **prediction.as_dict()})
    if "labels" in paths:
        write_label_map(paths["labels"], prediction.label_map(), classes)
    if not {"overlay", "side_by_side"} & set(paths):
        return
    overlay = draw_prediction(image, prediction, classes)
    if "overlay" in paths:
        write_image(paths["overlay"], overlay)
    if "side_by_side" in paths:
        write_image(paths["side_by_side"], draw_beside(image, overlay))


def write_label_map(path: Path, labels: np.ndarray, classes: ClassTable) -> None:
    """Write (H, W) uint8 class ids (255 for no class) as a png with the colours as its palette."""
    picture = Image.fromarray(labels, "L")
    picture.putpalette(classes.palette().tobytes(), "RGB")  # changes its mode to P
    picture.save(path, "PNG")


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
        """Write the results of an (H, W, 3) uint8 BGR frame; indices count from 0."""
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
