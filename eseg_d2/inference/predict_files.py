"""Run a predictor on many images or on videos; if one image fails, the rest still runs."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from eseg_d2.data.images import MAX_PIXELS, read_image
from eseg_d2.inference.outputs import FrameOutputs
from eseg_d2.inference.prediction import Prediction
from eseg_d2.inference.predictor import Predictor

__all__ = ["predict_files", "predict_frames"]

_ERRORS = (ValueError, OSError, MemoryError, torch.OutOfMemoryError)


def predict_files(
    predictor: Predictor,
    paths: Iterable[str],
    *,
    batch_size: int = 1,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[str, np.ndarray | None, Prediction | Exception]]:
    """Predict images in batches.

    Args:
        paths: paths of the images.
        batch_size: number of images in one pass through the model.
        max_pixels: see :func:`eseg_d2.data.images.read_image`.

    Yields:
        The path, the (H, W, 3) uint8 BGR image (None if it could not be read), and its prediction
        or the error that occurred; unreadable images come before the batch that is being filled.
    """
    batch: list[tuple[str, np.ndarray]] = []
    for path in paths:
        try:
            batch.append((path, read_image(path, max_pixels=max_pixels)))
        except _ERRORS as error:
            yield path, None, error
            continue
        if len(batch) == batch_size:
            yield from _predict(predictor, batch)
            batch = []
    yield from _predict(predictor, batch)


def _predict(predictor: Predictor, batch: Sequence[tuple[str, np.ndarray]]) -> Iterator[tuple]:
    try:
        predictions = predictor.predict_batch([image for _, image in batch])
    except _ERRORS as error:
        if len(batch) == 1:
            (path, image), message = batch[0], str(error) or type(error).__name__
            yield path, image, ValueError(f"{path}: {message}")
            return
        for item in batch:  # one of them is the cause, or the batch is too large
            yield from _predict(predictor, [item])
        return
    for (path, image), prediction in zip(batch, predictions, strict=True):
        yield path, image, prediction


def predict_frames(
    predictor: Predictor,
    frames: Iterable[tuple[int, np.ndarray]],
    outputs: FrameOutputs,
    *,
    batch_size: int = 1,
    on_frame=lambda: None,
) -> None:
    """Predict the frames of a video and write them.

    Args:
        frames: index and (H, W, 3) uint8 BGR pixels of each frame.
        outputs: takes the results.
        batch_size: number of frames in one pass through the model.
        on_frame: called after each frame.

    Raises:
        ValueError: the video is cut off; the frames before that are written.
    """
    for batch in _batches(frames, batch_size):
        predictions = predictor.predict_batch([frame for _, frame in batch])
        for (index, frame), prediction in zip(batch, predictions, strict=True):
            outputs.write(index, frame, prediction)
            on_frame()


def _batches(items: Iterable, size: int) -> Iterator[list]:
    """Yield lists of ``size`` items; a ValueError of ``items`` is raised after the items before."""
    batch, error = [], None
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except ValueError as e:
        error = e
    if batch:
        yield batch
    if error is not None:
        raise error
