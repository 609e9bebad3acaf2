"""Check segments_info of one annotation, without its png."""

from collections import Counter
from numbers import Real
from typing import Any, NamedTuple

from eseg_d2.data.datasets.json_entries import (
    LARGEST_SEGMENT_ID,
    is_flag,
    is_integer,
    is_segment_id,
)
from eseg_d2.utils.errors import listing

__all__ = ["Category", "Classes", "SegmentCheck", "check_segments", "is_box", "is_number"]


class Category(NamedTuple):
    """Name and kind of a class."""

    name: str
    is_thing: bool


class Classes(NamedTuple):
    """The classes of a data set.

    Attributes:
        by_id: the sound categories by dataset id.
        complete: whether no category is broken, so that any other id is unknown.
        sound: whether nothing at all is wrong with them, so that they can be compared with others.
    """

    by_id: dict[int, Category]
    complete: bool
    sound: bool


class SegmentCheck(NamedTuple):
    """What the png of an annotation can be checked against.

    Attributes:
        usable: entries whose id and category are right.
        listed: every valid id, including those of unknown categories.
        ids_complete: whether no id is missing or wrong, so that any other in the png is unlisted.
    """

    usable: list[dict]
    listed: list[int]
    ids_complete: bool


def is_number(value: Any) -> bool:
    """Return whether a value of a json is a number; true and false are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_box(value: Any) -> bool:
    """Return whether a value of a json is a list of four numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def check_segments(
    segments: list, classes: Classes
) -> tuple[SegmentCheck, list[tuple[str, Any, str]]]:
    """Check the entries of segments_info of one annotation.

    Returns:
        What is sound; and for each kind of flaw its code, the id of the first segment or category
        that has it, and what is wrong.
    """
    broken = [i for i, s in enumerate(segments) if not _is_sound(s, classes.by_id)]
    if not broken:
        ids = [s["id"] for s in segments]
        stuff = _stuff(segments, classes)
        if len(set(ids)) == len(ids) and len(set(stuff)) == len(stuff):
            return SegmentCheck(segments, ids, ids_complete=True), []
    flaws = [(i, *flaw) for i in broken for flaw in _flaws(segments[i], classes)]
    flaws += _duplicates(segments)
    wrong = {i for i, code, *_ in flaws if code in _ABOUT_ID}
    listed = [s for i, s in enumerate(segments) if i not in wrong]
    usable = [s for s in listed if s["category_id"] in classes.by_id]
    flaws += _stuff_in_parts(usable, classes)
    merged: dict[str, tuple[Any, dict[str, None]]] = {}
    for _, code, number, text in flaws:
        merged.setdefault(code, (number, {}))[1][text] = None
    found = [(code, number, listing(texts)) for code, (number, texts) in merged.items()]
    return SegmentCheck(usable, [s["id"] for s in listed], not wrong), found


_ABOUT_ID = ("segment-incomplete", "segment-id-range", "segment-duplicate-id")


def _is_sound(segment: Any, by_id: dict) -> bool:
    """Return whether nothing at all is wrong; fast, because it runs on millions of segments."""
    try:
        number, crowd = segment["id"], segment["iscrowd"]
        x, y, w, h = segment["bbox"]
        category = segment["category_id"]
        is_thing = by_id[category].is_thing
        return (
            type(number) is int
            and 0 < number <= LARGEST_SEGMENT_ID
            and type(category) is int
            and (crowd == 0 or (crowd == 1 and is_thing))
            and segment["area"] >= 0
            and x + y + w + h >= 0
        )
    except (KeyError, TypeError, ValueError):
        return False


def _flaws(segment: Any, classes: Classes) -> list[tuple[str, Any, str]]:
    """Return (code, id of the segment or of its category, what is wrong) for each flaw."""
    if not isinstance(segment, dict):
        kind = type(segment).__name__
        return [("segment-incomplete", None, f"an entry is a {kind}, expected an object")]
    wrong = [key for key in ("id", "category_id") if not is_integer(segment.get(key))]
    number = segment.get("id")
    if wrong:
        id_ = number if is_integer(number) else None
        got = listing(
            (f"{key} {segment[key]!r}" if key in segment else f"no {key}" for key in wrong), limit=5
        )
        return [("segment-incomplete", id_, f"segment {number!r} has {got}")]
    if not is_segment_id(number):
        return [
            ("segment-id-range", number, f"segment {number} is not in 1 .. {LARGEST_SEGMENT_ID}")
        ]
    category = segment["category_id"]
    if category not in classes.by_id:
        text = f"segment {number} has the category_id {category}"
        return [("unknown-category", category, text)] if classes.complete else []
    found = []
    if "iscrowd" not in segment:
        found.append(("iscrowd-missing", f"segment {number} lacks iscrowd"))
    elif not is_flag(segment["iscrowd"]):
        got = segment["iscrowd"]
        found.append(("iscrowd-invalid", f"segment {number} has iscrowd {got!r}, expected 0 or 1"))
    elif segment["iscrowd"] and not classes.by_id[category].is_thing:
        name = classes.by_id[category].name
        found.append(("crowd-stuff", f"segment {number} is a crowd of {name!r}, which is stuff"))
    for key, is_right, expected in ("area", is_number, "a number"), ("bbox", is_box, "4 numbers"):
        if not is_right(segment.get(key)):
            got = repr(segment[key]) if key in segment else "missing"
            text = f"segment {number}: {key} is {got}, expected {expected}"
            found.append((f"{key}-missing", text))
    return [(code, number, text) for code, text in found]


def _duplicates(segments: list) -> list[tuple[int, str, int, str]]:
    """Return (index, code, id, what is wrong) for each segment that shares its id."""
    ids = [s.get("id") if isinstance(s, dict) else None for s in segments]
    counts = Counter(number for number in ids if is_integer(number))
    return [
        (i, "segment-duplicate-id", number, f"{counts[number]} segments have the id {number}")
        for i, number in enumerate(ids)
        if is_integer(number) and counts[number] > 1
    ]


def _stuff(segments: list[dict], classes: Classes) -> list[int]:
    """Return the category of each segment that is stuff."""
    ids = [segment["category_id"] for segment in segments]
    return [id_ for id_ in ids if not classes.by_id[id_].is_thing]


def _stuff_in_parts(segments: list[dict], classes: Classes) -> list[tuple[int, str, int, str]]:
    """Return the same for each stuff class with several segments, with -1 as the index."""
    counts = Counter(_stuff(segments, classes))
    return [
        (-1, "stuff-in-parts", id_, f"{count} segments are {classes.by_id[id_].name!r} ({id_})")
        for id_, count in counts.items()
        if count > 1
    ]
