"""Read a panoptic json that may be broken: its top level and its categories."""

import os
from typing import NamedTuple

from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.apps.doctor.sources import Source
from eseg_d2.data.datasets.json_entries import CATEGORY_KEYS, is_integer, wrong_in
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.json_yaml import DuplicateKeyError, read_json

__all__ = ["Category", "Classes", "check_categories", "read_content"]

_LISTS = ("images", "annotations", "categories")


class Category(NamedTuple):
    """Name and kind of a class."""

    name: str
    is_thing: bool


class Classes(NamedTuple):
    """The classes of a data set.

    Attributes:
        by_id: the sound categories by dataset id.
        complete: no category is broken, so that any other id is unknown.
        sound: nothing at all is wrong with them, so that they can be compared with others.
    """

    by_id: dict[int, Category]
    complete: bool
    sound: bool


def read_content(source: Source) -> tuple[dict | None, list[Finding]]:
    """Return the json of a data set, with its three lists, or None and what is wrong with it."""
    path = source.panoptic_json
    try:
        content = read_json(path)
    except FileNotFoundError:
        where = f"there is no file {os.path.abspath(path)}"
        return None, [Finding("json-missing", source.name, path, None, where)]
    except DuplicateKeyError as e:
        return None, [Finding("json-duplicate-key", source.name, path, None, str(e))]
    except (ValueError, OSError) as e:
        return None, [Finding("json-invalid", source.name, path, None, str(e))]
    if not isinstance(content, dict):
        wrong = [f"it is a {type(content).__name__}, expected an object"]
    else:
        wrong = [
            f"{key!r} is {_kind(content, key)}, expected a list"
            for key in _LISTS
            if not isinstance(content.get(key), list)
        ] or [f"{key!r} is empty" for key in _LISTS if not content[key]]
    findings = [
        Finding("json-structure", source.name, path, None, f"{path}: {text}") for text in wrong
    ]
    return (None if wrong else content), findings


def _kind(content: dict, key: str) -> str:
    return f"of type {type(content[key]).__name__}" if key in content else "missing"


def check_categories(source: Source, categories: list) -> tuple[Classes, list[Finding]]:
    """Check the categories of a json.

    Args:
        source: of the data set.
        categories: of its json.

    Returns:
        The classes, and what is wrong with them.
    """
    findings, by_id, names = [], {}, {}

    def report(code: str, number: int | None, message: str) -> None:
        message = f"{source.panoptic_json}: {message}"
        findings.append(Finding(code, source.name, source.panoptic_json, number, message))

    complete = True
    for index, entry in enumerate(categories):
        wrong = wrong_in(entry, CATEGORY_KEYS)
        number = entry.get("id") if isinstance(entry, dict) else None
        number = number if is_integer(number) else None
        if wrong:
            complete = False
            which = index if number is None else f"with id {number}"
            report("category-incomplete", number, f"category {which} {wrong}")
        elif number in by_id:
            both = f"{by_id[number].name!r} and {entry['name']!r}"
            report("category-duplicate-id", number, f"the categories {both} have the id {number}")
        else:
            name = entry["name"]
            if name in names:
                both = f"{names[name]} and {number}"
                report(
                    "category-duplicate-name", number, f"the categories {both} are both {name!r}"
                )
            names.setdefault(name, number)
            by_id[number] = Category(name, bool(entry["isthing"]))
    sound = not findings
    if complete and source.label_space:
        for number, message in _not_registered(by_id, source.label_space):
            report("category-not-registered", number, message)
    return Classes(by_id, complete, sound), findings


def _not_registered(by_id: dict[int, Category], space: LabelSpace) -> list[tuple[int, str]]:
    """Return the ids of categories that differ from the registered ones, and how they differ."""
    registered = dict(zip(space.dataset_ids, space.is_thing.tolist(), strict=True))
    kinds = {True: "a thing", False: "stuff", None: "unknown"}
    return [
        (
            number,
            f"category {number} ({name!r}) is {kinds[is_thing]}; where the data set is "
            f"registered, the id is {kinds[registered.get(number)]}",
        )
        for number, (name, is_thing) in by_id.items()
        if registered.get(number) is not is_thing
    ]
