"""Read images for training, evaluation and inference, and resize them."""

import contextlib
import os
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from PIL import ExifTags, Image, ImageOps

from eseg_d2.utils.errors import BadSampleError
from eseg_d2.utils.files import require_file

__all__ = [
    "DATASET_SUFFIXES",
    "FastResize",
    "FastResizeTransform",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "build_augmentation",
    "opened",
    "oriented_size",
    "read_image",
    "resize_image",
    "upright_rgb",
]

DATASET_SUFFIXES = (".jpg", ".jpeg", ".png")  # suffixes of a data set's images, in lower case
# Suffixes of images for inference, and the decoders that may run. PIL has more, some of which
# start other programs (EPS) or do not read images.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
Image.init()  # Pillow may have been built without JPEG 2000 or AVIF
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
    """Read the (H, W, 3) uint8 pixels of an image, converted by :func:`upright_rgb`.

    Training, evaluation and inference all read images with this function, so that a model sees the
    same pixels everywhere. Of an animation or a file with several pages, it reads the first image.

    Args:
        path: JPEG, PNG, BMP, TIFF, WebP, GIF, PPM/PGM/PBM, JPEG 2000 or AVIF, whatever its suffix.
        image_format: ``"BGR"``, ``"RGB"`` or another one of INPUT.FORMAT.
        max_pixels: images with more pixels are rejected before they are decoded, as are all images
            above Pillow's limit of 178 million.
        max_aspect: images whose longer side is more than this many times the shorter one are also
            rejected.

    Raises:
        FileNotFoundError: the file does not exist, or is a dangling link.
        BadSampleError: it is a folder, empty, not an image, broken, or has too many pixels or too
            extreme an aspect ratio. This error is a ValueError.
    """
    with opened(path) as image:
        _check_size(image, path, max_pixels, max_aspect)
        upright = upright_rgb(image)
        if image_format == "BGR":  # a third of the time of reversing the channels in numpy
            return cv2.cvtColor(np.asarray(upright), cv2.COLOR_RGB2BGR)
        pixels = detection_utils.convert_PIL_to_numpy(upright, image_format)
    return np.ascontiguousarray(pixels)


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Open an image; errors while it is open, of whatever kind, are raised with the file's name.

    Raises:
        FileNotFoundError, BadSampleError: see :func:`read_image`.
    """
    name = os.fspath(path)
    try:
        require_file(path)
    except ValueError as e:
        raise BadSampleError(f"cannot read the image {name}: {e}") from e
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about PIL's own limit and odd EXIF data
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except BadSampleError:
        raise
    except Image.DecompressionBombError as e:
        raise BadSampleError(f"cannot read the image {name}: {e} Make it smaller.") from e
    except Image.UnidentifiedImageError as e:
        raise BadSampleError(
            f"cannot read the image {name}: it is not an image, or its format is not supported"
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
    """Return an image upright, in RGB with 8 bits per channel.

    - EXIF orientation is applied.
    - Greyscale, palette and two-colour images become RGB.
    - Transparent pixels are put on white.
    - 16-bit greyscale is divided by 257 and rounded, so that 0 .. 65535 become 0 .. 255. It is not
      stretched to the range of the image: equal pixels stay equal across files.
    - CMYK is converted without its colour profile; no profile is applied to RGB either.

    Args:
        image: an opened image, of which the first frame is used; it may be turned in place.

    Raises:
        ValueError: it has floating-point pixels, or values of more than 16 bits.
        OSError: it is damaged; some decoders raise other errors.
    """
    image.load()  # before reading the EXIF data, whose errors are ignored
    with contextlib.suppress(Exception):  # broken EXIF data do not make the pixels unreadable
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        return _from_sixteen_bit(np.asarray(image))
    if image.mode == "F":
        raise ValueError("it has floating-point pixels; expected 8 or 16 bits: convert it")
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_sixteen_bit(values: np.ndarray) -> Image.Image:
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise ValueError("it has 32 bits per pixel; expected 8 or 16")
    grey = (values.astype(np.uint32) + 128) // 257
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def oriented_size(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """Return what :func:`upright_rgb` makes of the (width, height) that an image is stored with."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except Exception:  # broken EXIF data rotate nothing
        return size
    return size[::-1] if turned else size


def build_augmentation(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Return Detectron2's augmentations of a config, whose resizing is a :class:`FastResize`."""
    augmentations = detection_utils.build_augmentation(cfg, is_train)
    return [FastResize(a) if isinstance(a, T.ResizeShortestEdge) else a for a in augmentations]


class FastResize(T.Augmentation):
    """Resizes as another augmentation does, with a :class:`FastResizeTransform`."""

    def __init__(self, augmentation: T.Augmentation):
        """Take the augmentation that chooses the size, such as ``ResizeShortestEdge``."""
        super().__init__()
        self._augmentation = augmentation

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Return the augmentation's transform for an (H, W, ...) image."""
        transform = self._augmentation.get_transform(image)
        if isinstance(transform, T.ResizeTransform):
            sizes = transform.h, transform.w, transform.new_h, transform.new_w
            return FastResizeTransform(*sizes, transform.interp)
        return transform

    def __repr__(self) -> str:
        return f"FastResize({self._augmentation})"


class FastResizeTransform(T.ResizeTransform):
    """A ``ResizeTransform`` that resizes colour images with :func:`resize_image`."""

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an (H, W, ...) array; labels and other interpolations are left to Detectron2."""
        method = self.interp if interp is None else interp
        colour = img.dtype == np.uint8 and img.ndim == 3 and img.shape[2] == 3
        if colour and method == Image.Resampling.BILINEAR:
            return resize_image(img, (self.new_h, self.new_w))
        return super().apply_image(img, interp)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an (H, W, 3) uint8 image to (H, W) ``size`` as PIL's bilinear, antialiased filter.

    PyTorch's kernel for 8 bits does the same fixed-point arithmetic; a few values in a thousand
    differ from PIL's by 1, because the weights of the pixels are rounded elsewhere.
    """
    if image.shape[:2] == tuple(size):
        return image
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    # channels last in the strides of all four dimensions, or the kernel copies
    pixels = pixels[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
