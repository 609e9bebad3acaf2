"""What the entries of a panoptic json must be, whoever wrote it."""

import os
from typing import Any

from eseg_d2.data.text import listing

__all__ = [
    "ANNOTATION_KEYS",
    "IMAGE_KEYS",
    "LARGEST_SEGMENT_ID",
    "is_id",
    "is_inside",
    "is_integer",
    "is_length",
    "join_inside",
    "leaves_folder",
    "wrong_in",
    "wrong_in_category",
]

LARGEST_SEGMENT_ID = 0xFFFFFF


def is_integer(value: Any) -> bool:
    """Whether a value of a json is an integer of 64 bits; true and false are none."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_length(value: Any) -> bool:
    """Whether a value of a json is a number of pixels, 1 or more."""
    return is_integer(value) and value > 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def is_id(value: Any) -> bool:
    """Whether a value of a json can be the id of an image."""
    return is_integer(value) or isinstance(value, str)


# By key: whether a value is right, and what is expected
IMAGE_KEYS = {
    "id": (is_id, "an integer or a text"),
    "file_name": (_is_name, "a text"),
    "width": (is_length, "pixels, 1 or more"),
    "height": (is_length, "pixels, 1 or more"),
}
ANNOTATION_KEYS = {
    "image_id": (is_id, "an integer or a text"),
    "file_name": (_is_name, "a text"),
    "segments_info": (lambda value: isinstance(value, list), "a list"),
}


def wrong_in(entry: Any, keys: dict) -> str:
    """What is wrong with an entry; empty if nothing.

    Args:
        entry: of the json.
        keys: those that it needs, as :data:`IMAGE_KEYS`.
    """
    if not isinstance(entry, dict):
        return f"is a {type(entry).__name__}, expected an object"
    for key, (is_right, expected) in keys.items():
        if key not in entry:
            return f"lacks {key}"
        if not is_right(entry[key]):
            return f"has {key} {entry[key]!r}, expected {expected}"
    return ""


def wrong_in_category(entry: Any) -> str:
    """As :func:`wrong_in`, of an entry of the categories."""
    if not isinstance(entry, dict):
        return f"is a {type(entry).__name__}, expected an object"
    missing = [key for key in ("id", "name", "isthing") if key not in entry]
    if missing:
        return f"lacks {listing(missing, limit=5)}"
    if not is_integer(entry["id"]):
        return f"has the id {entry['id']!r}, expected an integer"
    if not isinstance(entry["name"], str) or not entry["name"]:
        return f"has the name {entry['name']!r}, expected a text"
    if entry["isthing"] not in (0, 1):
        return f"has isthing {entry['isthing']!r}, expected 0 or 1"
    color = entry.get("color", [0, 0, 0])
    if not (isinstance(color, list) and len(color) == 3 and all(map(_is_byte, color))):
        return f"has the color {color!r}, expected three of 0 .. 255"
    return ""


def _is_byte(value: Any) -> bool:
    return is_integer(value) and 0 <= value <= 255


def leaves_folder(path: str) -> bool:
    """Whether a relative path leads out of its folder; symbolic links are not followed."""
    if os.path.isabs(path):
        return True
    return os.pardir in path and os.path.normpath(path).split(os.sep)[0] == os.pardir


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is below a folder; symbolic links are not followed."""
    if os.pardir not in path and path.startswith(os.path.join(folder, "")):
        return True  # nearly always, and relpath takes longer than all other checks
    return not leaves_folder(os.path.relpath(path, folder))


def join_inside(folder: str, name: str) -> str:
    """The path of a file in a folder; symbolic links are taken as they are.

    Raises:
        ValueError: the name is absolute or leads out of the folder: it is a stranger's.
    """
    if leaves_folder(name):
        raise ValueError(f"the path {name} is outside of {folder}")
    return os.path.join(folder, name)
