"""Compare the segments of a panoptic png with segments_info."""

from typing import NamedTuple

from eseg_d2.apps.doctor.content import Category
from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.apps.doctor.segments import SegmentCheck, is_box, is_number
from eseg_d2.data.panoptic_png import PADDING, VOID, SegmentPixels
from eseg_d2.utils.text import listing

__all__ = [
    "TINY_AREA",
    "ClassPixels",
    "class_pixels",
    "compare_segments",
]

TINY_AREA = 16 * 16
"""Things of fewer pixels are called tiny. COCO calls those below 32 x 32 small."""

_BOX_TOLERANCE = 1
"""In pixels: some tools count a box's last column and row, some do not."""


class ClassPixels(NamedTuple):
    """Pixels of one class (by its dataset id) in one image, and how many tiny things they are."""

    category_id: int
    pixels: int
    tiny: int


def compare_segments(
    found: dict[int, SegmentPixels], expected: SegmentCheck, dataset: str, path: str, image_id
) -> list[Finding]:
    """Compare a png with its segments_info.

    Args:
        found: in the png, as of :func:`count_segments`.
        expected: the sound part of segments_info.
        dataset, path, image_id: of the png, for the findings.

    Returns:
        What is wrong: at most one finding of each kind.
    """

    def report(code: str, id_, message: str) -> Finding:
        return Finding(code, dataset, path, id_, f"{path}: {message}")

    listed = set(expected.listed)
    drawn = {id_ for id_ in found if id_ != VOID and (id_ != PADDING or id_ in listed)}
    if not drawn and not listed and expected.ids_complete:
        return [report("no-segments", image_id, f"nothing of image {image_id!r} is annotated")]
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
            "segments_info does not list: they are taken for void"
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
    for code, key, wrong in (
        ("wrong-area", "area", _wrong_areas(found, expected.usable)),
        ("wrong-bbox", "bbox", _wrong_boxes(found, expected.usable)),
    ):
        if wrong:
            texts = [
                f"segment {s['id']} has the {key} {s[key]}, expected "
                f"{_plain(getattr(found[s['id']], key))}"
                for s in wrong
            ]
            findings.append(report(code, wrong[0]["id"], listing(texts)))
    return findings


def _swapped(id_: int) -> int:
    return (id_ & 255) << 16 | id_ & 0xFF00 | id_ >> 16


def _plain(value: int | tuple) -> str:
    return str(list(value) if isinstance(value, tuple) else value)


def _wrong_areas(found: dict[int, SegmentPixels], segments: list[dict]) -> list[dict]:
    return [
        s
        for s in segments
        if s["id"] in found and is_number(s.get("area")) and s["area"] != found[s["id"]].area
    ]


def _wrong_boxes(found: dict[int, SegmentPixels], segments: list[dict]) -> list[dict]:
    wrong = []
    for s in segments:
        if s["id"] in found and is_box(s.get("bbox")):
            pairs = zip(s["bbox"], found[s["id"]].bbox, strict=True)
            if not all(abs(a - b) <= _BOX_TOLERANCE for a, b in pairs):
                wrong.append(s)
    return wrong


def class_pixels(
    found: dict[int, SegmentPixels], segments: list[dict], by_id: dict[int, Category]
) -> list[ClassPixels]:
    """Pixels and tiny things of each class in one image.

    Args:
        found: in the png.
        segments: the usable ones of segments_info.
        by_id: categories by dataset id.
    """
    totals: dict[int, list[int]] = {}
    for s in segments:
        if s["id"] not in found:
            continue
        area = found[s["id"]].area
        single = by_id[s["category_id"]].is_thing and s.get("iscrowd", 0) == 0
        total = totals.setdefault(s["category_id"], [0, 0])
        total[0] += area
        total[1] += single and area < TINY_AREA
    return [ClassPixels(id_, *total) for id_, total in totals.items()]
