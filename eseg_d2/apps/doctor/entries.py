"""Check the images and annotations of a json, and join them as the loader does."""

import os
from contextlib import suppress
from typing import Any, NamedTuple

from eseg_d2.apps.doctor.content import Classes
from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.apps.doctor.segments import SegmentCheck, check_segments
from eseg_d2.apps.doctor.sources import Source
from eseg_d2.data.datasets.json_entries import (
    ANNOTATION_KEYS,
    IMAGE_KEYS,
    is_id,
    is_inside,
    is_length,
    leaves_folder,
    wrong_in,
)

__all__ = ["EntryCheck", "Record"]


class Record(NamedTuple):
    """One annotated image, and what its files are checked against.

    Attributes:
        dataset: name of the data set.
        image_id: id in the json.
        image_file, png_file: paths; None if the json is wrong about them, or the folder missing.
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

    What one broken entry entails is not reported: an entry without an id, say, cannot be told
    from an annotation that lacks its image, so that these are not looked for any more.

    Attributes:
        findings: what is wrong.
        records: of every annotation that is sound enough.
        image_files: paths of the images, annotated or not, where they can be told.
    """

    def __init__(self, source: Source, content: dict, classes: Classes):
        """
        Args:
            source: of the data set.
            content: its json, as of :func:`read_content`.
            classes: of its categories.
        """
        self.findings: list[Finding] = []
        self.records: list[Record] = []
        self.image_files: list[str] = []
        self._source = source
        self._classes = classes
        self._has_image_root = self._has_folder(source.image_root)
        self._has_png_root = self._has_folder(source.panoptic_root)
        self._images: dict[int | str, dict] = {}
        self._all_images_known = True
        self._wrong_paths: set[int | str] = set()
        self._check_images(content["images"])
        self._check_annotations(content["annotations"])

    def _report(self, code: str, number: Any, message: str) -> None:
        path = self._source.panoptic_json
        self.findings.append(Finding(code, self._source.name, path, number, f"{path}: {message}"))

    def _has_folder(self, path: str) -> bool:
        found = os.path.isdir(path)
        if not found:
            message = f"there is no folder {os.path.abspath(path)}"
            self.findings.append(Finding("folder-missing", self._source.name, path, None, message))
        return found

    def _check_images(self, images: list) -> None:
        names: dict[str, int | str] = {}
        for index, image in enumerate(images):
            id_ = _id_of(image, "id")
            wrong = wrong_in(image, IMAGE_KEYS)
            if wrong:
                which = f"images[{index}]" if id_ is None else f"the image {id_!r}"
                self._report("image-incomplete", id_, f"{which} {wrong}")
            if id_ is None:
                self._all_images_known = False
                continue
            if id_ in self._images:
                file_names = f"{self._images[id_].get('file_name')} and {image.get('file_name')}"
                self._report("image-duplicate-id", id_, f"{file_names} both have the id {id_!r}")
                continue
            self._images[id_] = image
            if wrong:
                continue
            name = image["file_name"]
            other = names.setdefault(name, id_)
            if other != id_:
                both = f"the images {other!r} and {id_!r} both have the file_name {name}"
                self._report("image-duplicate-file-name", id_, both)
                self._wrong_paths.add(id_)
            if leaves_folder(name):
                self._report_path(id_, f"the image {id_!r}", name)
                self._wrong_paths.add(id_)

    def _report_path(self, id_: int | str, owner: str, path: str) -> None:
        message = f"{owner} is at {path}, which is not inside the data set's folder"
        self._report("path-outside-root", id_, message)

    def _check_annotations(self, annotations: list) -> None:
        seen: dict[int | str, str] = {}
        names: dict[str, int | str] = {}
        all_known = True
        by_text = {str(id_): id_ for id_ in self._images}
        for index, annotation in enumerate(annotations):
            id_ = _id_of(annotation, "image_id")
            wrong = wrong_in(annotation, ANNOTATION_KEYS)
            if wrong:
                which = f"annotations[{index}]" if id_ is None else f"annotation of image {id_!r}"
                self._report("annotation-incomplete", id_, f"{which} {wrong}")
            if id_ is None:
                all_known = False
                continue
            if id_ in seen:
                both = f"{seen[id_]} and {annotation.get('file_name')}"
                self._report("annotation-duplicate", id_, f"image {id_!r} has two: {both}")
                continue
            seen[id_] = annotation.get("file_name")
            if id_ not in self._images and self._all_images_known:
                message = f"{seen[id_]} is of image {id_!r}, which is not among the images"
                if str(id_) in by_text:
                    other = by_text[str(id_)]
                    message += f"; {other!r} is, but a text is no integer"
                    seen.setdefault(other, seen[id_])
                self._report("annotation-without-image", id_, message)
            if not wrong:
                self.records.append(self._record(id_, annotation, names))
        self._collect_image_files()
        for id_ in self._images if all_known else ():
            if id_ not in seen:
                name = self._images[id_].get("file_name")
                self._report("image-without-annotation", id_, f"image {id_!r} ({name}) has none")

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
        segments, findings = check_segments(
            annotation["segments_info"],
            self._classes,
            self._source.name,
            self._source.panoptic_json,
            name,
        )
        self.findings += findings
        size = (image.get("width"), image.get("height")) if image else (None, None)
        return Record(
            self._source.name,
            id_,
            self._image_file(id_, image, annotation) if image else None,
            self._png_file(id_, name, names),
            size if all(map(is_length, size)) else None,
            segments,
        )

    def _png_file(self, id_: int | str, name: str, names: dict) -> str | None:
        other = names.setdefault(name, id_)
        if other != id_:
            both = f"the annotations of image {other!r} and {id_!r} both have the file_name {name}"
            self._report("annotation-duplicate-file-name", id_, both)
            return None
        if leaves_folder(name):
            self._report_path(id_, f"the png of image {id_!r}", name)
            return None
        return os.path.join(self._source.panoptic_root, name) if self._has_png_root else None

    def _image_file(self, id_: int | str, image: dict, annotation: dict) -> str | None:
        if id_ in self._wrong_paths:
            return None
        try:
            path = self._source.image_path(image, annotation)
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            if wrong_in(image, IMAGE_KEYS):
                return None
            if isinstance(e, ValueError):
                self._report_path(id_, f"the image {id_!r}", image["file_name"])
            else:
                message = f"the path of image {id_!r} cannot be told: {type(e).__name__}: {e}"
                self._report("path-unknown", id_, message)
            return None
        if not is_inside(path, self._source.image_root):
            self._report_path(id_, f"the image {id_!r}", path)
            return None
        return path if self._has_image_root else None


def _id_of(entry: Any, key: str) -> int | str | None:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if is_id(value) else None
