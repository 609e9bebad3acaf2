"""The rules for the entries of a panoptic json.

The loader, the doctor, the converters and the registration of a user's data sets all use them.
They expect jsons read by :func:`~eseg_d2.utils.json_yaml.read_json`, which turns whole floats into
integers.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = [
    "ANNOTATION_KEYS",
    "CATEGORY_KEYS",
    "IMAGE_KEYS",
    "LARGEST_SEGMENT_ID",
    "SEGMENT_KEYS",
    "Rule",
    "check_entries",
    "is_flag",
    "is_id",
    "is_inside",
    "is_integer",
    "is_length",
    "is_segment_id",
    "join_inside",
    "leaves_folder",
    "wrong_in",
]

LARGEST_SEGMENT_ID = 0xFFFFFF


def is_integer(value: Any) -> bool:
    """Return whether a value is a 64-bit integer; true and false are not."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_length(value: Any) -> bool:
    """Return whether a value is a number of pixels, 1 or more."""
    return is_integer(value) and value > 0


def is_id(value: Any) -> bool:
    """Return whether a value can be the id of an image."""
    return is_integer(value) or isinstance(value, str)


def is_segment_id(value: Any) -> bool:
    """Return whether a value can be the id of a segment: 24 bits, and not void."""
    return type(value) is int and 0 < value <= LARGEST_SEGMENT_ID


def is_flag(value: Any) -> bool:
    """Return whether a value is 0 or 1; true and false are also allowed."""
    return isinstance(value, int) and value in (0, 1)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_file_name(value: Any) -> bool:
    try:
        return _is_text(value) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _is_color(value: Any) -> bool:
    is_rgb = isinstance(value, list) and len(value) == 3
    return is_rgb and all(is_integer(v) and 0 <= v <= 255 for v in value)


class Rule(NamedTuple):
    """What a value must be.

    Attributes:
        is_right: returns whether a value follows the rule.
        expected: the rule in words.
        is_required: whether the key must be present.
    """

    is_right: Callable[[Any], bool]
    expected: str
    is_required: bool = True


_INTEGER = Rule(is_integer, "an integer")
_ID = Rule(is_id, "an integer or a string")
_FILE_NAME = Rule(_is_file_name, "the name of a file")
_LENGTH = Rule(is_length, "pixels, 1 or more")
_FLAG = Rule(is_flag, "0 or 1")

CATEGORY_KEYS = {
    "id": _INTEGER,
    "name": Rule(_is_text, "a string"),
    "isthing": _FLAG,
    "color": Rule(_is_color, "three of 0 .. 255", is_required=False),
}
IMAGE_KEYS = {"id": _ID, "file_name": _FILE_NAME, "width": _LENGTH, "height": _LENGTH}
ANNOTATION_KEYS = {
    "image_id": _ID,
    "file_name": _FILE_NAME,
    "segments_info": Rule(lambda value: isinstance(value, list), "a list"),
}
SEGMENT_KEYS = {
    "id": Rule(is_segment_id, f"an integer, 1 .. {LARGEST_SEGMENT_ID}"),
    "category_id": _INTEGER,
    "iscrowd": Rule(is_flag, "0 or 1", is_required=False),
}


def wrong_in(entry: Any, keys: dict[str, Rule]) -> str:
    """Return what is wrong with an entry of a json by rules such as :data:`IMAGE_KEYS`, or ""."""
    if not isinstance(entry, dict):
        return f"is of type {type(entry).__name__}, expected an object"
    for key, (is_right, expected, is_required) in keys.items():
        if key not in entry:
            if is_required:
                return f"lacks {key}"
        elif not is_right(entry[key]):
            return f"has {key} {entry[key]!r}, expected {expected}"
    return ""


def check_entries(content: dict, name: str, keys: dict[str, Rule], path: str | os.PathLike) -> None:
    """Check all entries of the list ``name`` in the content of the json at a path.

    Raises:
        ValueError: an entry does not follow the rules, such as :data:`IMAGE_KEYS`.
    """
    for index, entry in enumerate(content[name]):
        wrong = wrong_in(entry, keys)
        if wrong:
            raise ValueError(f"{path}: {name}[{index}] {wrong}")


def leaves_folder(path: str) -> bool:
    """Return whether a relative path leads out of its folder; symbolic links are not followed."""
    if os.path.isabs(path):
        return True
    return os.pardir in path and os.path.normpath(path).split(os.sep)[0] == os.pardir


def is_inside(path: str, folder: str) -> bool:
    """Return whether a path is below a folder; symbolic links are not followed."""
    if os.pardir not in path and path.startswith(os.path.join(folder, "")):
        return True  # the usual case; relpath takes longer than all other checks
    return not leaves_folder(os.path.relpath(path, folder))


def join_inside(folder: str, name: str) -> str:
    """Return the path of a file in a folder; symbolic links are not followed.

    Raises:
        ValueError: the name, which may be untrusted, is absolute or leads out of the folder.
    """
    if leaves_folder(name):
        raise ValueError(f"the path {name} is outside of {folder}")
    return os.path.join(folder, name)
