"""Statistics over all files: counts of classes, train against val, repeated images."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.apps.doctor.image_files import FileCheck
from eseg_d2.apps.doctor.json_file import Record
from eseg_d2.apps.doctor.segments import Category, SegmentCheck
from eseg_d2.apps.doctor.sources import Source
from eseg_d2.data.images import DATASET_SUFFIXES
from eseg_d2.utils.errors import listing

__all__ = ["TINY_AREA", "DatasetStatistics", "compare_datasets", "find_duplicates", "find_unlisted"]

TINY_AREA = 16 * 16
"""Things of fewer pixels are called tiny. COCO calls those below 32 x 32 small."""

_ABOUT_IMAGES = {
    *("image-incomplete", "image-duplicate-id", "image-duplicate-file-name", "image-missing"),
    *("image-unreadable", "annotation-without-image", "path-outside-root", "path-unknown"),
}
"""With these findings it is unknown, or already reported, which images the json should list."""


@dataclass
class DatasetStatistics:
    """Statistics of a data set. The keys of the counters are dataset ids of classes.

    Attributes:
        source: the data set.
        categories: the sound categories by dataset id, in the json's order.
        records: number of annotated images.
        comparable: whether nothing is wrong with the categories.
        complete: whether the entries have no errors, so that the counts cover the whole data set.
        segments, images: from the json, segments of each class and images with such a segment.
        objects: segments of each class that are not crowds.
        checked: number of images whose pngs were counted; the counts below are over these.
        pixels: pixels of each class.
        tiny: things of fewer than :data:`TINY_AREA` pixels of each class, without crowds.
        all_pixels, void_pixels: number of pixels of the pngs, and of those in no segment.
    """

    source: Source
    categories: dict[int, Category] = field(default_factory=dict)
    comparable: bool = True
    complete: bool = True
    records: int = 0
    segments: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    objects: Counter = field(default_factory=Counter)
    checked: int = 0
    pixels: Counter = field(default_factory=Counter)
    tiny: Counter = field(default_factory=Counter)
    all_pixels: int = 0
    void_pixels: int = 0

    def add_segments(self, check: SegmentCheck) -> None:
        """Count the segments of one annotation."""
        ids = [segment["category_id"] for segment in check.usable]
        self.records += 1
        self.segments.update(ids)
        self.images.update(set(ids))
        self.objects.update(s["category_id"] for s in check.usable if not s.get("iscrowd"))

    def add_files(self, check: FileCheck) -> None:
        """Count the pixels of one png."""
        self.checked += check.pixels > 0
        self.all_pixels += check.pixels
        self.void_pixels += check.void
        for id_, pixels, is_single in check.segments:
            self.pixels[id_] += pixels
            is_object = is_single and self.categories[id_].is_thing
            self.tiny[id_] += is_object and pixels < TINY_AREA

    def as_dict(self) -> dict:
        """Return the statistics as a json can hold them; shares are of all pixels, or None."""
        return {
            "name": self.source.name,
            "role": self.source.role,
            "images": self.records,
            "segments": self.segments.total(),
            "images_counted": self.checked,
            "tiny_things": self.tiny.total(),
            "void_share": self.share(self.void_pixels),
            "classes": [
                {
                    "id": id_,
                    "name": name,
                    "isthing": int(is_thing),
                    "segments": self.segments[id_],
                    "images": self.images[id_],
                    "pixel_share": self.share(self.pixels[id_]),
                    "tiny_things": self.tiny[id_],
                }
                for id_, (name, is_thing) in self.categories.items()
            ],
        }

    def share(self, pixels: int) -> float | None:
        """Return ``pixels`` as a share of all pixels; None if no png was counted."""
        return pixels / self.all_pixels if self.all_pixels else None


def compare_datasets(datasets: Iterable[DatasetStatistics]) -> list[Finding]:
    """Compare the classes of data sets that are used together."""
    groups: dict[str, list[DatasetStatistics]] = {}
    for dataset in datasets:
        if dataset.records:  # else its json is broken, and its classes are not known
            groups.setdefault(dataset.source.group, []).append(dataset)
    findings = []
    for group in groups.values():
        train = [d for d in group if d.source.role == "train"]
        val = [d for d in group if d.source.role == "val"]
        pairs = [(a, b) for a, b in product(train, val) if a.comparable and b.comparable]
        different = [(a, b) for a, b in pairs if [*a.categories.items()] != [*b.categories.items()]]
        findings += [_categories_differ(*pair) for pair in different]
        if all(dataset.comparable and dataset.complete for dataset in group):
            if train and not different:
                findings += [finding for d in val for finding in _only_in_val(train, d)]
            findings += _crowd_only(train)
            findings += _absent(group)
    return findings


def _categories_differ(train: DatasetStatistics, val: DatasetStatistics) -> Finding:
    ours, theirs = (
        [f"{id_} {name} ({'thing' if is_thing else 'stuff'})" for id_, (name, is_thing) in items]
        for items in (train.categories.items(), val.categories.items())
    )
    alone = {
        train.source.name: [c for c in ours if c not in theirs],
        val.source.name: [c for c in theirs if c not in ours],
    }
    texts = [f"{name} alone has {listing(c, limit=5)}" for name, c in alone.items() if c]
    names = f"{train.source.name} and {val.source.name}"
    message = f"the categories of {names} differ: {'; '.join(texts) or 'their order'}"
    return val.source.finding("categories-differ", None, message)


def _only_in_val(train: list[DatasetStatistics], val: DatasetStatistics) -> list[Finding]:
    seen = {id_ for dataset in train for id_ in dataset.segments}
    names = listing((dataset.source.name for dataset in train), limit=5)
    return [
        val.source.finding(
            "class-only-in-val",
            id_,
            f"class {id_} ({val.categories[id_].name}) has {val.segments[id_]} segments in "
            f"{val.source.name}, but none in {names}",
        )
        for id_ in val.categories
        if id_ in val.segments and id_ not in seen
    ]


def _crowd_only(train: list[DatasetStatistics]) -> list[Finding]:
    segments = sum((dataset.segments for dataset in train), Counter())
    objects = sum((dataset.objects for dataset in train), Counter())
    categories = {id_: c for dataset in train for id_, c in dataset.categories.items()}
    names = listing((dataset.source.name for dataset in train), limit=5)
    return [
        train[0].source.finding(
            "class-crowd-only",
            id_,
            f"class {id_} ({name}) is a thing, but all its {segments[id_]} segments in {names} "
            "are crowds: no object of it can be learnt",
        )
        for id_, (name, is_thing) in categories.items()
        if is_thing and segments[id_] and not objects[id_]
    ]


def _absent(group: list[DatasetStatistics]) -> list[Finding]:
    present = {id_ for dataset in group for id_ in dataset.segments}
    categories = {id_: c for dataset in group for id_, c in dataset.categories.items()}
    absent = [f"{id_} ({c.name})" for id_, c in categories.items() if id_ not in present]
    if not absent:
        return []
    names = listing((dataset.source.name for dataset in group), limit=5)
    message = f"{len(absent)} classes have no segment in {names}: {listing(absent, limit=200)}"
    return [Finding("class-absent", group[0].source.name, None, None, message)]


def find_duplicates(
    sources: Sequence[Source], records: Sequence[Record], digests: Sequence[bytes]
) -> list[Finding]:
    """Find images with identical bytes within a data set, and in both train and val.

    Args:
        sources, records: the data sets, and their images.
        digests: digest of each image's bytes; empty if it could not be read.

    Returns:
        One finding for each image that repeats an earlier one, or that repeats one of train in val.
    """
    roles = {source.name: source.role for source in sources}
    first: dict[tuple[str, bytes], Record] = {}
    in_train: dict[bytes, Record] = {}
    findings = []
    for record, digest in zip(records, digests, strict=True):
        if not digest:
            continue
        if roles[record.dataset] == "train":
            in_train.setdefault(digest, record)
        other = first.setdefault((record.dataset, digest), record)
        if other is not record:
            findings.append(_repeated("duplicate-image", record, other))
    for (dataset, digest), record in first.items():
        if roles[dataset] == "val" and digest in in_train:
            findings.append(_repeated("image-in-train-and-val", record, in_train[digest]))
    return findings


def _repeated(code: str, record: Record, other: Record) -> Finding:
    path = record.image_file
    message = f"{path}: image {record.image_id!r} has the same bytes as {other.image_file}"
    return Finding(code, record.dataset, path, record.image_id, message)


def find_unlisted(
    image_files: Mapping[Source, Sequence[str]], findings: Iterable[Finding]
) -> list[Finding]:
    """Find images in the data sets' folders that none of the data sets lists.

    Data sets whose images are unclear, by the findings so far, are skipped.
    """
    unclear = {finding.dataset for finding in findings if finding.code in _ABOUT_IMAGES}
    listed = {os.path.normpath(path) for paths in image_files.values() for path in paths}
    pngs = {os.path.normpath(source.panoptic_root) for source in image_files}
    found, told = [], set()
    for source, paths in image_files.items():
        folder = os.path.normpath(source.image_root)
        if not paths or folder in told or source.name in unclear:
            continue
        told.add(folder)
        others = [path for path in _images(folder, pngs) if path not in listed]
        if others:
            names = listing(os.path.relpath(path, folder) for path in sorted(others))
            message = f"{folder} holds {len(others)} images that the json does not list: {names}"
            found.append(Finding("image-not-listed", source.name, folder, None, message))
    return found


def _images(folder: str, pngs: set[str]) -> Iterator[str]:
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if os.path.join(parent, name) not in pngs]
        for name in names:
            if os.path.splitext(name)[1].lower() in DATASET_SUFFIXES:
                yield os.path.join(parent, name)
