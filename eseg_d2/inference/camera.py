"""Read frames from a camera with OpenCV."""

from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np

__all__ = ["Camera"]


class Camera:
    """A camera as a context manager that yields frames until the camera ends.

    Attributes:
        fps: frames per second as the camera reports them, or 30.
    """

    def __init__(self, number: int = 0):
        """
        Args:
            number: number of the camera; the first is 0.

        Raises:
            ValueError: the camera cannot be opened.
        """
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the error below says it
        try:
            self._capture = cv2.VideoCapture(number)
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not self._capture.isOpened():
            raise ValueError(
                f"camera {number} cannot be opened: is one connected (on Linux /dev/video{number}) "
                "and free?"
            )
        self.fps = Fraction(self._capture.get(cv2.CAP_PROP_FPS) or 30).limit_denominator(1000)

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the index and the (H, W, 3) uint8 BGR pixels of each frame."""
        index = 0
        while True:
            found, frame = self._capture.read()
            if not found:
                return
            yield index, frame
            index += 1

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_) -> None:
        self._capture.release()
