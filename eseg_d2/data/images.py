"""Read any image as the models take it: the one place for this."""

import contextlib
import os
import warnings
from collections.abc import Iterator

import numpy as np
from detectron2.data import detection_utils
from PIL import ExifTags, Image, ImageOps

from eseg_d2.utils.errors import BadSampleError
from eseg_d2.utils.files import require_file

__all__ = [
    "DATASET_SUFFIXES",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "opened",
    "oriented_size",
    "read_image",
    "upright_rgb",
]

DATASET_SUFFIXES = (".jpg", ".jpeg", ".png")  # of the images of a data set, in lower case
# Suffixes of images that a model is asked about, and the decoders that may run. PIL has more, some
# of which start other programs (EPS) or are not images.
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
    path: str | os.PathLike,
    image_format: str = "BGR",
    *,
    max_pixels: float = MAX_PIXELS,
    max_aspect: float = float("inf"),
) -> np.ndarray:
    """Read the (H, W, 3) uint8 pixels of an image, as :func:`upright_rgb` makes them.

    Training, evaluation and inference all read images by this function, so that a model sees the
    same pixels everywhere. Of an animation or several pages the first is taken.

    Args:
        path: JPEG, PNG, BMP, TIFF, WebP, GIF, PPM/PGM/PBM, JPEG 2000 or AVIF, whatever its suffix.
        image_format: ``"BGR"``, ``"RGB"`` or another one of INPUT.FORMAT.
        max_pixels: images with more are refused before they are decoded, as all of more than
            Pillow's limit of 178 million are.
        max_aspect: so are images whose longer side is more than this many times the shorter one.

    Raises:
        FileNotFoundError: there is no such file, or it is a link to none.
        BadSampleError: a folder, an empty file, no image, a broken one, one of too many pixels, or
            one that is too long and thin. It is a ValueError.
    """
    with opened(path) as image:
        _check_size(image, path, max_pixels, max_aspect)
        pixels = detection_utils.convert_PIL_to_numpy(upright_rgb(image), image_format)
    return np.ascontiguousarray(pixels)


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Open an image; errors while it is open, of which decoders raise all kinds, name the file.

    Raises:
        FileNotFoundError, BadSampleError: see :func:`read_image`.
    """
    name = os.fspath(path)
    try:
        require_file(path)
    except FileNotFoundError:
        raise
    except ValueError as e:
        raise BadSampleError(f"cannot read the image {name}: {e}") from e
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PIL's own limit and of odd EXIF data
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except BadSampleError:
        raise
    except Image.DecompressionBombError as e:
        raise BadSampleError(f"cannot read the image {name}: {e} Make it smaller.") from e
    except Image.UnidentifiedImageError as e:
        raise BadSampleError(
            f"cannot read the image {name}: it is no image, or in a format unknown here"
        ) from e
    except Exception as e:
        reason = str(e) or type(e).__name__
        raise BadSampleError(f"cannot read the image {name}: {reason}. Is it complete?") from e


def _check_size(
    image: Image.Image, path: str | os.PathLike, max_pixels: float, max_aspect: float
) -> None:
    width, height = image.size
    if max(width, height) > max_aspect * min(width, height):
        raise BadSampleError(
            f"{os.fspath(path)} is too long and thin: it has {width} x {height} pixels, and the "
            f"longer side may be {max_aspect:g} times the shorter one. Cut it into pieces."
        )
    if width * height > max_pixels:
        raise BadSampleError(
            f"{os.fspath(path)} has {width} x {height} pixels; the limit is {max_pixels / 1e6:.0f} "
            "million (max_pixels, --max-pixels). Make it smaller, or raise the limit if you trust "
            "the file."
        )


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB of 8 bits, the right way up.

    - EXIF orientation is applied.
    - Grey, palette and two-colour images become RGB.
    - Transparent pixels are laid on white.
    - Grey of 16 bits is divided by 257 and rounded, so that 0 .. 65535 become 0 .. 255. The
      darkest and brightest values are not sought: equal pixels stay equal over files.
    - CMYK is converted without its colour profile; no profile is applied to RGB either.

    Args:
        image: opened; the first frame of it is taken.

    Raises:
        ValueError: it has floating-point pixels, or values of more than 16 bits.
        OSError: it is damaged; other decoders raise other errors.
    """
    image.load()  # before the EXIF data, whose errors are not those of the pixels
    with contextlib.suppress(Exception):  # broken EXIF data do not make the pixels unreadable
        image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        return _from_sixteen_bit(np.asarray(image))
    if image.mode == "F":
        raise ValueError("it has floating-point pixels; expected 8 or 16 bits: convert it")
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_sixteen_bit(values: np.ndarray) -> Image.Image:
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise ValueError("it has 32 bits a pixel; expected 8 or 16")
    grey = (values.astype(np.uint32) + 128) // 257
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def oriented_size(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) of an image as :func:`upright_rgb` turns it.

    Args:
        image: whose EXIF data count.
        size: its (width, height) as stored.
    """
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except Exception:  # broken EXIF data turn nothing
        return size
    return size[::-1] if turned else size
