"""Find and read the inputs of a conversion: files by name, label pngs, image sizes."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from eseg_d2.data.images import opened, oriented_size
from eseg_d2.data.panoptic_png import GREY, HEADER_BYTES, PALETTE, png_header
from eseg_d2.utils.files import require_file

__all__ = ["find_files", "image_size", "read_label_png", "repeated"]


def repeated(values: Iterable) -> list:
    """Return the hashable values that occur more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def find_files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return the files of a folder and its subfolders by their relative path without suffix.

    Args:
        folder: folder to search; names that begin with a dot are skipped.
        suffixes: in lower case, such as ``(".png",)``; files may have them in any case.

    Returns:
        ``{"city/a": folder / "city/a.png", ...}`` in sorted order, never empty.

    Raises:
        FileNotFoundError: there is no such folder, or none of its files has these suffixes.
        ValueError: two files differ only in the suffix.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    files = {}
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if name.startswith(".") or path.suffix.lower() not in suffixes:
                continue
            key = path.relative_to(folder).with_suffix("").as_posix()
            if key in files:
                raise ValueError(
                    f"{files[key]} and {path} differ only in the suffix: which one is meant? "
                    "Remove or rename the other."
                )
            files[key] = path
    if not files:
        raise FileNotFoundError(f"{folder} holds no files *{', *'.join(suffixes)}")
    return dict(sorted(files.items()))


def image_size(path: Path) -> tuple[int, int]:
    """Return the (height, width) of an image as the loader reads it, rotated as its EXIF data say.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not an image.
    """
    with opened(path) as image:
        width, height = oriented_size(image, image.size)
    return height, width


def read_label_png(path: Path) -> np.ndarray:
    """Return the numbers stored in a png of one channel.

    Args:
        path: path of a greyscale png of up to 16 bits, or one with a palette, whose indices count.

    Returns:
        (H, W) int64, 0 .. 65535.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not a complete png, or has colours or transparency.
    """
    require_file(path)
    try:
        with open(path, "rb") as f:
            header = png_header(f.read(HEADER_BYTES))
            if header is None:
                raise ValueError(f"{path} is not a png; labels must be stored as png")
            if header.color_type not in (GREY, PALETTE):
                raise ValueError(
                    f"{path} is a colour png (colour type {header.color_type}); expected one "
                    "channel whose pixels are ids: greyscale of 8 or 16 bits, or a palette. Map "
                    "its colours to ids first."
                )
            f.seek(0)
            with Image.open(f) as image:
                scaled = image.mode == "L" and header.depth < 8
                values = np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError) as e:
        raise ValueError(f"cannot read {path}: {e}. Is it complete?") from e
    # Pillow scales greyscale of 2 and 4 bits to 0 .. 255
    return values // (255 // (2**header.depth - 1)) if scaled else values
