"""Reading any image as the models take it, or an error that names the file."""

import os
import stat
import warnings

import numpy as np
from PIL import Image

from eseg_d2.data.pixels import upright_rgb

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "read_image", "require_file"]

# Suffixes that a folder's images have, and the decoders that may run. PIL has more, some of which
# start other programs (EPS) or are not images.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
Image.init()  # a Pillow without JPEG 2000 or AVIF reads the others
_FORMATS = tuple(
    {"JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF"} & Image.OPEN.keys()
)
MAX_PIXELS = 2**26  # a small file may claim to be huge


def read_image(path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The (H, W, 3) uint8 BGR pixels of an image, the right way up.

    They are those that a model is trained with, see :func:`~eseg_d2.data.pixels.upright_rgb`. Of
    an animation or several pages the first is taken.

    Args:
        path: JPEG, PNG, BMP, TIFF, WebP, GIF, PPM/PGM/PBM, JPEG 2000 or AVIF, whatever its suffix.
        max_pixels: images with more are refused before they are decoded.

    Raises:
        FileNotFoundError: there is no such file, or it is a link to none.
        ValueError: a folder, an empty file, no image, a broken one, or one of too many pixels.
    """
    require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PIL's own limit and of odd EXIF data
            with Image.open(path, formats=_FORMATS) as image:
                _check_size(image, path, max_pixels)
                rgb = upright_rgb(image)
        return np.ascontiguousarray(np.asarray(rgb)[:, :, ::-1])
    except _TooLarge as e:
        raise ValueError(str(e)) from None
    except Image.DecompressionBombError as e:
        raise ValueError(
            f"{os.fspath(path)} has more than 178 million pixels, Pillow's limit. Make it smaller."
        ) from e
    except Image.UnidentifiedImageError as e:
        raise ValueError(f"{os.fspath(path)} is no image, or in a format unknown here") from e
    except Exception as e:  # decoders of broken files raise all kinds of errors
        reason = str(e) or type(e).__name__
        raise ValueError(f"cannot read the image {os.fspath(path)}: {reason}") from e


def require_file(path: str | os.PathLike) -> None:
    """Check that there is a file with content, which may be opened without waiting for a pipe.

    Raises:
        FileNotFoundError: nothing there, or a link that leads nowhere.
        ValueError: a folder, a device or pipe, an empty file, or one that may not be read.
    """
    name = os.fspath(path)
    try:
        status = os.stat(path)
    except FileNotFoundError as e:
        if os.path.islink(path):
            raise FileNotFoundError(
                f"{name} is a link to {os.readlink(path)}, which is not there"
            ) from e
        raise FileNotFoundError(f"no such file: {name}") from e
    except (OSError, ValueError) as e:  # a loop of links, a zero byte in the name
        raise ValueError(f"cannot open {name}: {getattr(e, 'strerror', None) or e}") from e
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{name} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{name} is a device or pipe, not a file")
    if status.st_size == 0:
        raise ValueError(f"{name} is empty")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{name} may not be read: permission denied")


class _TooLarge(Exception):
    pass


def _check_size(image: Image.Image, path, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _TooLarge(_too_large(path, f"{width} x {height}", max_pixels))


def _too_large(path, got: str, max_pixels: int) -> str:
    return (
        f"{os.fspath(path)} has {got} pixels; the limit is {max_pixels / 1e6:.0f} million "
        "(max_pixels, --max-pixels). Make it smaller, or raise the limit if you trust the file."
    )
