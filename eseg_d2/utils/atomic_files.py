"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Callable
from typing import BinaryIO

__all__ = ["remove_leftovers", "write_atomically"]

_MARK = ".partial"


def write_atomically(path: str, write: Callable[[BinaryIO], None]) -> None:
    """Write a file beside ``path``, bring it to the disk, and only then give it its name.

    Args:
        path: of the file; what is there is replaced at the end, in one step. Its folder is made if
            it is not there.
        write: is called with the open binary file.

    Raises:
        OSError: as writing does; then ``path`` is as it was, and nothing is left beside it.
    """
    try:
        _write(path, write)
    except FileNotFoundError:  # the folder was deleted meanwhile
        _write(path, write)


def _write(path: str, write: Callable[[BinaryIO], None]) -> None:
    partial = f"{path}{_MARK}"
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    try:
        with open(partial, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise
    _sync_folder(os.path.dirname(path) or ".")


def remove_leftovers(folder: str) -> None:
    """Remove what a killed process left half-written."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.endswith(_MARK):
            os.remove(os.path.join(folder, name))


def _sync_folder(folder: str) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
