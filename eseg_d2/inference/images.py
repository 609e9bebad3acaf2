"""Reading any image as the models take it, or an error that names the file."""

import os
import stat
import warnings

import numpy as np
from PIL import Image, ImageOps

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
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def read_image(
    path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS, max_aspect: float = float("inf")
) -> np.ndarray:
    """The (H, W, 3) uint8 BGR pixels of an image, the right way up.

    - EXIF orientation is applied.
    - Grey, palette and two-colour images become BGR.
    - Transparent pixels are laid on white.
    - 16 bit are scaled from 0 .. 65535 to 0 .. 255; the darkest and brightest values are not
      sought, so that equal pixels stay equal over files.
    - CMYK is converted without its colour profile; no profile is applied to RGB either.
    - Of an animation or several pages the first is taken.

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
                image.load()
                rgb = _to_rgb(_upright(image))
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


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data do not make the pixels unreadable
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        return _from_sixteen_bit(np.asarray(image))
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("it has 32 bits a pixel; expected 8 or 16")
        return _from_sixteen_bit(values)
    if image.mode == "F":
        raise ValueError("it has floating-point pixels; expected 8 or 16 bits: convert it")
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_sixteen_bit(values: np.ndarray) -> Image.Image:
    grey = (values.astype(np.uint32) * 255 + 32767) // 65535
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
