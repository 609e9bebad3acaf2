"""Reading any image as the models take it, or an error that names the file."""

import os
import warnings

import cv2
import numpy as np
from PIL import Image

from eseg_d2.data.pixels import upright_rgb
from eseg_d2.utils.safe_files import require_file

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "read_image"]

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


def read_image(
    path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS, max_aspect: float = float("inf")
) -> np.ndarray:
    """The (H, W, 3) uint8 BGR pixels of an image, the right way up.

    They are those that a model is trained with, see :func:`~eseg_d2.data.pixels.upright_rgb`. Of
    an animation or several pages the first is taken.

    Args:
        path: JPEG, PNG, BMP, TIFF, WebP, GIF, PPM/PGM/PBM, JPEG 2000 or AVIF, whatever its suffix.
        max_pixels: images with more are refused before they are decoded.
        max_aspect: so are images whose longer side is more than this many times the shorter one.

    Raises:
        FileNotFoundError: there is no such file, or it is a link to none.
        ValueError: a folder, an empty file, no image, a broken one, one of too many pixels, or
            one that is too long and thin.
    """
    require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PIL's own limit and of odd EXIF data
            with Image.open(path, formats=_FORMATS) as image:
                _check_size(image, path, max_pixels, max_aspect)
                rgb = upright_rgb(image)
        return cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR)
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


class _TooLarge(Exception):
    pass


def _check_size(image: Image.Image, path, max_pixels: int, max_aspect: float) -> None:
    width, height = image.size
    if max(width, height) > max_aspect * min(width, height):
        raise _TooLarge(
            f"{os.fspath(path)} is too long and thin: it has {width} x {height} pixels, and the "
            f"longer side may be {max_aspect:g} times the shorter one. Cut it into pieces."
        )
    if width * height > max_pixels:
        raise _TooLarge(_too_large(path, f"{width} x {height}", max_pixels))


def _too_large(path, got: str, max_pixels: int) -> str:
    return (
        f"{os.fspath(path)} has {got} pixels; the limit is {max_pixels / 1e6:.0f} million "
        "(max_pixels, --max-pixels). Make it smaller, or raise the limit if you trust the file."
    )
