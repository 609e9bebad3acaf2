"""The pixels of an image as all models take them, whatever its mode: the one place for this."""

import contextlib

import numpy as np
from PIL import ExifTags, Image, ImageOps

__all__ = ["IMAGE_SUFFIXES", "oriented_size", "upright_rgb"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # of the images of a data set, in lower case
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


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
