"""Check the files of one image, and its pixels against segments_info. This runs in the workers."""

import hashlib
import io
import os
import traceback
from collections.abc import Sequence
from operator import ne
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.apps.doctor.json_file import Record
from eseg_d2.apps.doctor.segments import is_box, is_number
from eseg_d2.data.images import oriented_size, upright_rgb
from eseg_d2.data.panoptic_png import (
    HEADER_BYTES,
    PADDING,
    VOID,
    SegmentPixels,
    count_segments,
    rgb_to_segment_id,
    wrong_png_format,
)
from eseg_d2.utils.errors import listing
from eseg_d2.utils.files import read_file

__all__ = ["FileCheck", "check_files", "internal"]

Size = tuple[int, int]
_RARE = ("I", "F")  # modes whose pixels may not be colours
_BOX_TOLERANCE = 1
"""In pixels: some tools count a box's last column and row, some do not."""


class FileCheck(NamedTuple):
    """The result of checking the files of one image.

    Attributes:
        findings: what is wrong.
        digest: digest of the image's bytes; empty if it cannot be read.
        pixels, void: number of pixels of the png, and of those in no segment.
        segments: of each segment, its class (a dataset id), its pixels and whether it is no crowd.
    """

    findings: list[Finding]
    digest: bytes = b""
    pixels: int = 0
    void: int = 0
    segments: Sequence[tuple[int, int, bool]] = ()


class _Problem(Exception):
    """A file cannot be used; the arguments are the end of the finding's code and the reason."""


def check_files(record: Record) -> FileCheck:
    """Check the image and the png of one record. Whatever goes wrong becomes a finding."""
    try:
        return _check(record)
    except Exception as e:  # one odd file must not end the check of thousands
        last = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return FileCheck([internal(record, f"{type(e).__name__} in {where}: {e}")])


def internal(record: Record, reason: str) -> Finding:
    """Return the finding that the check of a record failed."""
    path = record.png_file or record.image_file
    message = f"{path}: image {record.image_id!r} could not be checked: {reason}"
    return Finding("internal", record.dataset, path, record.image_id, message)


def _check(record: Record) -> FileCheck:
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
    # A png whose size matches nothing else belongs to another image: its segments say nothing.
    others = {size for size in (image_size, record.json_size) if size}
    if segment_map is None or (others and png_size not in others):
        return FileCheck(findings, digest)
    found = count_segments(segment_map)
    findings += _compare_segments(found, record)
    void_ids = found.keys() & {VOID, PADDING} - set(record.segments.listed)
    void = sum(found[id_].area for id_ in void_ids)
    segments = [
        (s["category_id"], found[s["id"]].area, s.get("iscrowd", 0) == 0)
        for s in record.segments.usable
        if s["id"] in found
    ]
    return FileCheck(findings, digest, segment_map.size, void, segments)


def _compare_sizes(
    record: Record, image: Size | None, png: Size | None
) -> tuple[str, str, str] | None:
    """Return (code, path, message) if the sizes (width, height) differ."""
    if image and png and image != png:
        message = f"{_text(png)} pixels, but its image {record.image_file} has {_text(image)}"
        return "size-mismatch", record.png_file, message
    actual, path = (image, record.image_file) if image else (png, record.png_file)
    if actual and record.json_size and actual != record.json_size:
        stated = _text(record.json_size)
        return "json-size", path, f"{_text(actual)} pixels, but {stated} in the json"
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
    """Return the image, with every byte decoded, and its (width, height).

    JPEGs are decoded to an eighth of their size, which is faster and detects as much.
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
    """Return (width, height) as the loader rotates the image, and the digest of its bytes."""
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


def _compare_segments(found: dict[int, SegmentPixels], record: Record) -> list[Finding]:
    """Return what is wrong with the segments of a png: at most one finding of each kind."""
    expected, path, image_id = record.segments, record.png_file, record.image_id

    def report(code: str, id_, message: str) -> Finding:
        return Finding(code, record.dataset, path, id_, f"{path}: {message}")

    listed = set(expected.listed)
    drawn = {id_ for id_ in found if id_ != VOID and (id_ != PADDING or id_ in listed)}
    if not drawn and not listed and expected.ids_complete:
        return [report("no-segments", image_id, f"image {image_id!r} has no annotated segment")]
    if not drawn and listed:
        return [report("all-void", image_id, f"all pixels of image {image_id!r} are void")]
    findings = []
    if drawn != listed and {_swapped(id_) for id_ in drawn} == listed:
        message = "the ids are those of segments_info if red and blue are swapped"
        return [report("png-bgr", image_id, f"{message} (image {image_id!r})")]
    if PADDING in found and PADDING not in listed and expected.ids_complete:
        share = found[PADDING].area / sum(pixels.area for pixels in found.values())
        message = (
            f"{found[PADDING].area} pixels ({share:.0%}) are 255, 255, 255 (id {PADDING}), which "
            "segments_info does not list: they are treated as void"
        )
        findings.append(report("void-as-white", PADDING, message))
    unlisted = sorted(drawn - listed) if expected.ids_complete else []
    if unlisted:
        texts = listing((f"{id_} ({found[id_].area} pixels)" for id_ in unlisted), limit=5)
        message = f"segments_info does not list the segments {texts}"
        findings.append(report("unlisted-segment", unlisted[0], message))
    empty = [s["id"] for s in expected.usable if s["id"] not in found]
    if empty:
        message = f"the segments {listing(empty, limit=5)} of segments_info have no pixel"
        findings.append(report("empty-segment", empty[0], message))
    for code, key, is_valid, differs in (
        ("wrong-area", "area", is_number, ne),
        ("wrong-bbox", "bbox", is_box, _boxes_differ),
    ):
        pairs = [
            (s, getattr(found[s["id"]], key))
            for s in expected.usable
            if s["id"] in found and is_valid(s.get(key))
        ]
        wrong = [(s, right) for s, right in pairs if differs(s[key], right)]
        if wrong:
            texts = (
                f"segment {s['id']} has the {key} {s[key]}, expected "
                f"{list(right) if key == 'bbox' else right}"
                for s, right in wrong
            )
            findings.append(report(code, wrong[0][0]["id"], listing(texts)))
    return findings


def _swapped(id_: int) -> int:
    return (id_ & 255) << 16 | id_ & 0xFF00 | id_ >> 16


def _boxes_differ(stated: Sequence, right: Sequence) -> bool:
    pairs = zip(stated, right, strict=True)
    return not all(abs(a - b) <= _BOX_TOLERANCE for a, b in pairs)  # true for NaN
