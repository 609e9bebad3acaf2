"""Check the files of one image: runs in the workers."""

import hashlib
import io
import os
import traceback
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from eseg_d2.apps.doctor.content import Category
from eseg_d2.apps.doctor.entries import Record
from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.apps.doctor.pixels import (
    ClassPixels,
    class_pixels,
    compare_segments,
)
from eseg_d2.data.panoptic_png import (
    HEADER_BYTES,
    PADDING,
    VOID,
    count_segments,
    rgb_to_segment_id,
    wrong_png_format,
)
from eseg_d2.data.pixels import oriented_size, upright_rgb
from eseg_d2.utils.safe_files import read_file

__all__ = ["FileCheck", "check_files", "internal"]

Size = tuple[int, int]
_RARE = ("I", "F")  # modes whose pixels may be no colours


class FileCheck(NamedTuple):
    """What the files of one image tell.

    Attributes:
        findings: what is wrong.
        digest: of the image's bytes; empty if it cannot be read.
        pixels, void: number of pixels of the png, and of those in no segment.
        classes: pixels of each class.
    """

    findings: list[Finding]
    digest: bytes = b""
    pixels: int = 0
    void: int = 0
    classes: list[ClassPixels] = []  # noqa: RUF012, never changed


class _Problem(Exception):
    """A file cannot be used: the end of the code, and why."""


def check_files(record: Record, classes: dict[str, dict[int, Category]]) -> FileCheck:
    """Check image and png of one record. Whatever goes wrong becomes a finding.

    Args:
        record: of the json.
        classes: by data set, by dataset id.
    """
    try:
        return _check(record, classes[record.dataset])
    except Exception as e:  # one odd file must not end the check of thousands
        last = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return FileCheck([internal(record, f"{type(e).__name__} in {where}: {e}")])


def internal(record: Record, reason: str) -> Finding:
    """The finding that the check of a record failed."""
    path = record.png_file or record.image_file
    message = f"{path}: image {record.image_id!r} could not be checked: {reason}"
    return Finding("internal", record.dataset, path, record.image_id, message)


def _check(record: Record, by_id: dict[int, Category]) -> FileCheck:
    findings = []

    def report(code: str, path: str, message: str) -> None:
        id_ = record.image_id
        findings.append(Finding(code, record.dataset, path, id_, f"{path}: {message}"))

    image_size, digest, segment_map = None, b"", None
    if record.image_file:
        try:
            image_size, digest = _read_image(record.image_file)
        except _Problem as e:
            report(f"image-{e.args[0]}", record.image_file, e.args[1])
    if record.png_file:
        try:
            segment_map = _read_png(record.png_file)
        except _Problem as e:
            report(f"png-{e.args[0]}", record.png_file, e.args[1])
    png_size = None if segment_map is None else segment_map.shape[::-1]
    wrong = _compare_sizes(record, image_size, png_size)
    if wrong:
        report(*wrong)
    # A png of another size than all else is another image's: its segments tell nothing.
    others = {size for size in (image_size, record.json_size) if size}
    if segment_map is None or (others and png_size not in others):
        return FileCheck(findings, digest)
    found = count_segments(segment_map)
    png = record.png_file
    findings += compare_segments(found, record.segments, record.dataset, png, record.image_id)
    void = sum(found[id_].area for id_ in _void_ids(record) if id_ in found)
    pixels = class_pixels(found, record.segments.usable, by_id)
    return FileCheck(findings, digest, segment_map.size, void, pixels)


def _void_ids(record: Record) -> set[int]:
    return {VOID, PADDING} - set(record.segments.listed)


def _compare_sizes(
    record: Record, image: Size | None, png: Size | None
) -> tuple[str, str, str] | None:
    """(code, path, message) if the sizes (width, height) differ."""
    if image and png and image != png:
        message = f"{_text(png)} pixels, but its image {record.image_file} has {_text(image)}"
        return "size-mismatch", record.png_file, message
    actual, path = (image, record.image_file) if image else (png, record.png_file)
    if actual and record.json_size and actual != record.json_size:
        return "json-size", path, f"{_text(actual)} pixels, the json says {_text(record.json_size)}"
    return None


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _read_bytes(path: str) -> bytes:
    try:
        return read_file(path)
    except FileNotFoundError as e:
        raise _Problem("missing", "there is no such file") from e
    except (ValueError, OSError) as e:
        if os.path.isfile(path) and not os.path.getsize(path):
            raise _Problem("zero-bytes", "the file is empty (0 bytes)") from e
        raise _Problem("unreadable", f"cannot be read: {e}") from e


def _decode(data: bytes) -> tuple[Image.Image, Size]:
    """The image, every byte of it decoded, and its (width, height).

    JPEGs are decoded to an eighth of their size, which is quicker and notices as much.
    """
    try:
        image = Image.open(io.BytesIO(data))
        size = image.size
        image.draft("L", (1, 1))
        image.load()
    except Exception as e:  # the decoders raise all kinds of errors
        raise _Problem("unreadable", f"cannot be decoded, is it complete? ({e})") from e
    return image, size


def _read_image(path: str) -> tuple[Size, bytes]:
    """Return (width, height) as the loader turns the image, and the digest of its bytes."""
    data = _read_bytes(path)
    image, size = _decode(data)
    if image.mode in _RARE:
        try:
            upright_rgb(image)
        except ValueError as e:
            raise _Problem("unreadable", f"cannot be used: {e}") from e
    return oriented_size(image, size), hashlib.sha1(data, usedforsecurity=False).digest()


def _read_png(path: str) -> np.ndarray:
    """Return (H, W) int32, segment ids."""
    data = _read_bytes(path)
    image, _ = _decode(data)
    wrong = wrong_png_format(data[:HEADER_BYTES])
    if wrong:
        raise _Problem("format", wrong)
    return rgb_to_segment_id(np.asarray(image)[..., :3])
