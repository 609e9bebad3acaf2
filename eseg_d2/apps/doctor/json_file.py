"""Check a panoptic json that may be broken: its categories, images and annotations."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.apps.doctor.segments import Category, Classes, SegmentCheck, check_segments
from eseg_d2.apps.doctor.sources import Source
from eseg_d2.data.datasets.json_entries import (
    ANNOTATION_KEYS,
    CATEGORY_KEYS,
    IMAGE_KEYS,
    Rule,
    is_id,
    is_inside,
    is_integer,
    is_length,
    leaves_folder,
    wrong_in,
)
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.json_yaml import DuplicateKeyError, read_json

__all__ = ["EntryCheck", "Record", "check_categories", "read_content"]

_LISTS = ("images", "annotations", "categories")


def read_content(source: Source) -> tuple[dict | None, list[Finding]]:
    """Return the json of a data set, or None if it cannot be used, and what is wrong with it."""
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
        wrong = [f"it is of type {type(content).__name__}, expected an object"]
    else:
        kinds = {key: f"of type {type(value).__name__}" for key, value in content.items()}
        wrong = [
            f"{key!r} is {kinds.get(key, 'missing')}, expected a list"
            for key in _LISTS
            if not isinstance(content.get(key), list)
        ] or [f"{key!r} is empty" for key in _LISTS if not content[key]]
    findings = [source.finding("json-structure", None, text) for text in wrong]
    return (None if wrong else content), findings


def check_categories(source: Source, categories: list) -> tuple[Classes, list[Finding]]:
    """Return the classes that the categories of a json define, and what is wrong with them."""
    findings, by_id, names = [], {}, {}

    def report(code: str, number: int | None, message: str) -> None:
        findings.append(source.finding(code, number, message))

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
                message = f"the categories {both} are both {name!r}"
                report("category-duplicate-name", number, message)
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


class Record(NamedTuple):
    """One annotated image, and what its files are checked against.

    Attributes:
        image_file, png_file: paths; None if the json has a wrong one, or the folder is missing.
        json_size: (width, height) in pixels; None if the json lacks it.
        segments: the sound part of segments_info.
    """

    dataset: str
    image_id: int | str
    image_file: str | None
    png_file: str | None
    json_size: tuple[int, int] | None
    segments: SegmentCheck


class EntryCheck:
    """Checks the entries of one json.

    What follows from a broken entry is not reported: once an image has no id, for example, an
    annotation whose image is not found may belong to it, so such annotations are not reported.

    Attributes:
        findings: what is wrong.
        records: one for every annotation that is sound enough.
        image_files: paths of the images, annotated or not, where they are known.
    """

    def __init__(self, source: Source, content: dict, classes: Classes):
        self.findings: list[Finding] = []
        self.records: list[Record] = []
        self.image_files: list[str] = []
        self._source = source
        self._classes = classes
        self._has_image_root = self._has_folder(source.image_root)
        self._has_png_root = self._has_folder(source.panoptic_root)
        self._images: dict[int | str, dict] = {}
        self._without_id: set[str] = set()  # kinds of entries of which one has no id
        self._wrong_paths: set[int | str] = set()
        self._check_images(content["images"])
        self._check_annotations(content["annotations"])

    def _report(self, code: str, number: Any, message: str) -> None:
        self.findings.append(self._source.finding(code, number, message))

    def _has_folder(self, path: str) -> bool:
        found = os.path.isdir(path)
        if not found:
            message = f"there is no folder {os.path.abspath(path)}"
            self.findings.append(Finding("folder-missing", self._source.name, path, None, message))
        return found

    def _report_path(self, id_: int | str, owner: str, path: str) -> None:
        message = f"{owner} is at {path}, which is not inside the data set's folder"
        self._report("path-outside-root", id_, message)

    def _known(
        self, kind: str, entries: list, key: str, rules: dict[str, Rule]
    ) -> Iterator[tuple[int | str, dict, bool]]:
        """Yield the entries that have an id: their id, the entry and whether it is sound."""
        for index, entry in enumerate(entries):
            id_ = entry.get(key) if isinstance(entry, dict) else None
            id_ = id_ if is_id(id_) else None
            wrong = wrong_in(entry, rules)
            if wrong:
                which = f"{kind}s[{index}]" if id_ is None else f"the {kind} with {key} {id_!r}"
                self._report(f"{kind}-incomplete", id_, f"{which} {wrong}")
            if id_ is None:
                self._without_id.add(kind)
            else:
                yield id_, entry, not wrong

    def _is_right_path(self, kind: str, id_: int | str, name: str, names: dict) -> bool:
        """Return whether a file is inside its folder and no other entry has it; report it if not.

        ``names`` holds the id of the first entry with each name.
        """
        what = "image" if kind == "image" else "the png of image"
        other = names.setdefault(name, id_)
        if other != id_:
            both = f"{what} {other!r} and {what} {id_!r} both have the file_name {name}"
            self._report(f"{kind}-duplicate-file-name", id_, both)
        elif leaves_folder(name):
            self._report_path(id_, f"{what} {id_!r}", name)
        else:
            return True
        return False

    def _check_images(self, images: list) -> None:
        names: dict[str, int | str] = {}
        for id_, image, is_sound in self._known("image", images, "id", IMAGE_KEYS):
            if id_ in self._images:
                file_names = f"{self._images[id_].get('file_name')} and {image.get('file_name')}"
                self._report("image-duplicate-id", id_, f"{file_names} both have the id {id_!r}")
                continue
            self._images[id_] = image
            if is_sound and not self._is_right_path("image", id_, image["file_name"], names):
                self._wrong_paths.add(id_)

    def _check_annotations(self, annotations: list) -> None:
        seen: dict[int | str, str] = {}
        names: dict[str, int | str] = {}
        by_text = {str(id_): id_ for id_ in self._images}
        for id_, annotation, is_sound in self._known(
            "annotation", annotations, "image_id", ANNOTATION_KEYS
        ):
            if id_ in seen:
                both = f"{seen[id_]} and {annotation.get('file_name')}"
                message = f"image {id_!r} has two annotations: {both}"
                self._report("annotation-duplicate", id_, message)
                continue
            seen[id_] = annotation.get("file_name")
            if id_ not in self._images and "image" not in self._without_id:
                message = f"{seen[id_]} belongs to image {id_!r}, which is not among the images"
                if str(id_) in by_text:
                    other = by_text[str(id_)]
                    message += f"; {other!r} is, but a string is not an integer"
                    seen.setdefault(other, seen[id_])
                self._report("annotation-without-image", id_, message)
            if is_sound:
                self.records.append(self._record(id_, annotation, names))
        self._collect_image_files()
        all_known = "annotation" not in self._without_id
        for id_, image in self._images.items() if all_known else ():
            if id_ not in seen:
                message = f"image {id_!r} ({image.get('file_name')}) has no annotation"
                self._report("image-without-annotation", id_, message)

    def _collect_image_files(self) -> None:
        files = {record.image_id: record.image_file for record in self.records}
        for id_, image in self._images.items():
            if id_ not in files:
                with suppress(KeyError, TypeError, AttributeError, ValueError):
                    files[id_] = self._source.image_path(image, {"image_id": id_})
        self.image_files = [path for path in files.values() if path]

    def _record(self, id_: int | str, annotation: dict, names: dict) -> Record:
        image = self._images.get(id_)
        name = annotation["file_name"]
        segments, flaws = check_segments(annotation["segments_info"], self._classes)
        for code, number, texts in flaws:
            self._report(code, number, f"in the annotation of {name}, {texts}")
        size = (image.get("width"), image.get("height")) if image else (None, None)
        png_file = None
        if self._is_right_path("annotation", id_, name, names) and self._has_png_root:
            png_file = os.path.join(self._source.panoptic_root, name)
        return Record(
            self._source.name,
            id_,
            self._image_file(id_, image, annotation) if image else None,
            png_file,
            size if all(map(is_length, size)) else None,
            segments,
        )

    def _image_file(self, id_: int | str, image: dict, annotation: dict) -> str | None:
        if id_ in self._wrong_paths:
            return None
        try:
            path = self._source.image_path(image, annotation)
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            if wrong_in(image, IMAGE_KEYS):
                return None
            if isinstance(e, ValueError):
                self._report_path(id_, f"image {id_!r}", image["file_name"])
            else:
                message = f"the path of image {id_!r} is unknown: {type(e).__name__}: {e}"
                self._report("path-unknown", id_, message)
            return None
        if not is_inside(path, self._source.image_root):
            self._report_path(id_, f"image {id_!r}", path)
            return None
        return path if self._has_image_root else None
