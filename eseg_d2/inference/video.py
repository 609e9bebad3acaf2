"""Read and write videos with PyAV, and read a camera with OpenCV."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from eseg_d2.utils.files import require_file

__all__ = ["Camera", "FrameRange", "VideoReader", "VideoWriter", "require_av"]

# Only demuxers of real videos: others (playlists, lists of files) open files and addresses that a
# hostile video names
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf"
_COMPLETE = 0.8  # share of the announced frames, whose number some formats only estimate
_X264 = {"crf": "20"}
_ENCODERS = {
    ".mp4": [("libx264", "H.264", _X264), ("mpeg4", "MPEG-4 Part 2", {"qscale": "3"})],
    ".mkv": [("libx264", "H.264", _X264), ("mpeg4", "MPEG-4 Part 2", {"qscale": "3"})],
    ".webm": [("libvpx-vp9", "VP9", {"crf": "30", "b": "0"})],
}


@dataclass(frozen=True)
class FrameRange:
    """The frames ``start``, ``start + stride``, ... before ``stop`` (None: to the end), from 0."""

    start: int = 0
    stop: int | None = None
    stride: int = 1

    def __post_init__(self):
        if self.start < 0 or self.stride < 1 or (self.stop is not None and self.stop <= self.start):
            raise ValueError(
                f"start {self.start}, stop {self.stop}, stride {self.stride}: expected "
                "0 <= start < stop and a stride of at least 1"
            )

    def __contains__(self, index: int) -> bool:
        return index >= self.start and (index - self.start) % self.stride == 0

    def count(self, frames: int) -> int:
        """Return how many of a video's ``frames`` are in the range."""
        return len(range(frames)[self.start : self.stop : self.stride])


def require_av():
    """Return PyAV's module.

    Raises:
        ValueError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as e:
        raise ValueError("videos need PyAV: pip install -e '.[video]' (or pip install av)") from e
    return av


class VideoReader:
    """A video file as a context manager that yields its frames, without sound.

    Attributes:
        path: path of the file.
        fps: frames per second, a Fraction; the average if they vary.
        num_frames: number of frames as the file states it, or an estimate; 0 if unknown.
    """

    def __init__(self, path: str | os.PathLike):
        """
        Raises:
            FileNotFoundError: no such file.
            ValueError: it is not a video, or PyAV is not installed.
        """
        av = require_av()
        require_file(path)
        self.path = os.fspath(path)
        options = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
        try:
            # "file:" so that a colon in the name is not read as a protocol
            self._container = av.open(f"file:{os.path.abspath(path)}", options=options)
        except (av.FFmpegError, OSError, ValueError) as e:
            raise ValueError(f"{self.path} is not a video, or is broken: {_reason(e)}") from e
        if not self._container.streams.video:
            self._container.close()
            raise ValueError(f"{self.path} has no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = Fraction(rate) if rate else Fraction(25)
        seconds = (self._container.duration or 0) / av.time_base
        self.num_frames = self._stream.frames or round(seconds * self.fps)

    def frames(self, selected: FrameRange = FrameRange()) -> Iterator[tuple[int, np.ndarray]]:  # noqa: B008
        """Yield the index and the upright (H, W, 3) uint8 BGR pixels of each frame in a range.

        Frames before the range are also decoded, so that indices are exact.

        Raises:
            ValueError: a frame cannot be decoded, the file is cut off, or the range is empty.
        """
        index = -1
        try:
            for index, frame in enumerate(self._container.decode(self._stream)):
                if selected.stop is not None and index >= selected.stop:
                    return
                if index in selected:
                    yield index, _pixels(frame)
        except (OSError, ValueError) as e:  # PyAV's errors are among them
            raise ValueError(f"{self.path} is broken after {index + 1} frames: {_reason(e)}") from e
        self._check_end(index + 1, selected)

    def _check_end(self, found: int, selected: FrameRange) -> None:
        if found <= selected.start:
            raise ValueError(
                f"{self.path} has {found} frames: none is left from frame {selected.start} on"
            )
        wanted = min(selected.stop or self.num_frames, self.num_frames)
        if found < _COMPLETE * wanted:
            raise ValueError(
                f"{self.path} ends after {found} frames, but its header announces "
                f"{self.num_frames}: is it complete?"
            )

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_) -> None:
        self._container.close()


def _pixels(frame) -> np.ndarray:
    pixels = frame.to_ndarray(format="bgr24")
    turns = round(frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class VideoWriter:
    """A context manager that writes a video without sound: .mp4 or .mkv in H.264, .webm in VP9.

    If PyAV has no H.264, the codec is MPEG-4 Part 2; :meth:`describe` names it. Width and height
    must be even: an odd one is extended by one pixel, a copy of the last.
    """

    def __init__(self, path: Path, fps: Fraction):
        """
        Args:
            path: path that ends in .mp4, .mkv or .webm; its folder exists.
            fps: frames per second.
        """
        self._av = require_av()
        self.path, self.fps, self.num_frames = Path(path), fps, 0
        self._encoder, self.codec, options = self._choose_encoder()
        self._container = self._av.open(f"file:{self.path.absolute()}", "w")
        self._stream = self._container.add_stream(self._encoder, rate=fps, options=options)
        self._stream.pix_fmt = "yuv420p"

    def _choose_encoder(self) -> tuple[str, str, dict]:
        encoders = _ENCODERS[self.path.suffix.lower()]
        for encoder in encoders:
            try:
                self._av.codec.Codec(encoder[0], "w")
            except ValueError:  # PyAV was built without it
                continue
            return encoder
        names = ", ".join(name for name, *_ in encoders)
        raise ValueError(f"{self.path}: this PyAV cannot write {names}; choose another suffix")

    def write(self, frame: np.ndarray) -> None:
        """Append an (H, W, 3) uint8 RGB frame.

        Raises:
            ValueError: its size differs from that of the first frame.
        """
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        if self.num_frames == 0:
            self._stream.height, self._stream.width = frame.shape[:2]
        elif frame.shape[:2] != (self._stream.height, self._stream.width):
            raise ValueError(
                f"{self.path}: a frame of {width} x {height} pixels among frames of "
                f"{self._stream.width} x {self._stream.height}"
            )
        picture = self._av.VideoFrame.from_ndarray(frame, format="rgb24")
        self._container.mux(self._stream.encode(picture))
        self.num_frames += 1

    def describe(self) -> str:
        """Return a description of what was written, with the codec."""
        return (
            f"{self.path}: {self.num_frames} frames of {self._stream.width} x "
            f"{self._stream.height} at {float(self.fps):.5g} frames/s, {self.codec} "
            f"({self._encoder}, yuv420p), without sound"
        )

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_) -> None:
        if self.num_frames:
            self._container.mux(self._stream.encode())
        self._container.close()
        if not self.num_frames:
            self.path.unlink(missing_ok=True)


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
