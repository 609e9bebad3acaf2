"""Look at files before they are opened; write files that are there whole or not at all."""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

__all__ = [
    "read_file",
    "remove_leftovers",
    "replacing",
    "require_file",
    "write_atomically",
    "write_image",
]

_MAX_BYTES = 2**32  # more than any json or image of a data set needs
_PARTIAL = ".partial"
_IMAGE_OPTIONS = {
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
}


def require_file(path: str | os.PathLike, *, max_bytes: int = _MAX_BYTES) -> None:
    """Check that there is a file with content, which may be opened without waiting for a pipe.

    Raises:
        FileNotFoundError: nothing there, or a link that leads nowhere.
        ValueError: a folder, a device or pipe, an empty file, one that may not be read, or one
            that is too large.
    """
    name = os.fspath(path)
    try:
        status = os.stat(path)
    except FileNotFoundError as e:
        if os.path.islink(name):
            target = os.readlink(name)
            raise FileNotFoundError(f"{name} is a link to {target}, which is not there") from e
        raise FileNotFoundError(f"no such file: {name}") from e
    except (OSError, ValueError) as e:  # a loop of links, a zero byte in the name
        raise ValueError(f"cannot open {name}: {getattr(e, 'strerror', None) or e}") from e
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{name} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{name} is a device or pipe, not a file")
    if status.st_size == 0:
        raise ValueError(f"{name} is empty")
    if status.st_size > max_bytes:
        raise ValueError(f"{name} has {status.st_size} bytes; the limit is {max_bytes}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{name} may not be read: permission denied")


def read_file(path: str | os.PathLike, *, max_bytes: int = _MAX_BYTES) -> bytes:
    """Return the content of a file. Args and errors are those of :func:`require_file`."""
    require_file(path, max_bytes=max_bytes)
    with open(path, "rb") as file:
        return file.read()


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, sync: bool = False) -> Iterator[Path]:
    """Give a path beside `path` to write to, which takes the place of `path` at the end.

    If the block raises, `path` stays as it was, and nothing is left beside it. Missing folders are
    made. With `sync`, the file is there whole even if the machine stops.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}{_PARTIAL}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if sync:
            _sync(partial, os.O_RDWR)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    if sync:
        with contextlib.suppress(OSError):  # some file systems cannot
            _sync(path.parent, os.O_RDONLY)


def write_atomically(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Write a file by :func:`replacing`, on the disk at once.

    Args:
        path: path of the file.
        write: called with the open binary file, and again if the folder was deleted meanwhile.

    Raises:
        OSError: the file cannot be written; ``path`` is as it was.
    """

    def attempt() -> None:
        with replacing(path, sync=True) as partial, open(partial, "wb") as f:
            write(f)

    try:
        attempt()
    except FileNotFoundError:
        attempt()


def remove_leftovers(folder: str) -> None:
    """Remove what a killed process left half-written."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.endswith(_PARTIAL):
            os.remove(os.path.join(folder, name))


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG or JPEG, by the path's suffix.

    Args:
        path: its folder exists; perhaps one of :func:`replacing`.
        pixels: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.

    Raises:
        OSError: the file cannot be written.
    """
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    suffix = Path(path.name.removesuffix(_PARTIAL)).suffix
    done, data = cv2.imencode(suffix, pixels, _IMAGE_OPTIONS[suffix])
    assert done, f"OpenCV cannot encode {pixels.dtype} {pixels.shape} as {suffix}"
    path.write_bytes(data.tobytes())
