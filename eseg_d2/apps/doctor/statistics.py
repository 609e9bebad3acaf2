"""Count classes, and compare train with val."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product

from eseg_d2.apps.doctor.content import Category
from eseg_d2.apps.doctor.files import FileCheck
from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.apps.doctor.segments import SegmentCheck
from eseg_d2.apps.doctor.sources import Source
from eseg_d2.utils.text import listing

__all__ = ["DatasetStatistics", "compare_datasets"]


@dataclass
class DatasetStatistics:
    """What a data set consists of. Counters are by dataset id of the class.

    Attributes:
        source: the data set.
        categories: sound ones, in the json's order, by dataset id.
        records: annotated images.
        comparable: nothing is wrong with the categories.
        complete: the entries have no error, so that the numbers below are those of the data set.
        segments, images: segments of each class, and images that have one; from the json.
        objects: segments that are no crowds.
        checked: images whose pngs were counted; the rest is from those.
        pixels: of each class.
        tiny: things of fewer than :data:`TINY_AREA` pixels, no crowds.
        all_pixels, void_pixels: of the pngs, and those of no segment.
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
        for id_, pixels, tiny in check.classes:
            self.pixels[id_] += pixels
            self.tiny[id_] += tiny

    def as_dict(self) -> dict:
        """For a json. Shares are of all pixels, void ones included; None if none was counted."""
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
        """Of all pixels; None if no png was counted."""
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
        different = [pair for pair in pairs if not _same_classes(*pair)]
        findings += [_categories_differ(*pair) for pair in different]
        if all(dataset.comparable and dataset.complete for dataset in group):
            if train and not different:
                findings += [finding for d in val for finding in _only_in_val(train, d)]
            findings += _crowd_only(train)
            findings += _absent(group)
    return findings


def _same_classes(a: DatasetStatistics, b: DatasetStatistics) -> bool:
    return list(a.categories.items()) == list(b.categories.items())


def _categories_differ(train: DatasetStatistics, val: DatasetStatistics) -> Finding:
    ours, theirs = (
        [f"{id_} {name} ({'thing' if is_thing else 'stuff'})" for id_, (name, is_thing) in items]
        for items in (train.categories.items(), val.categories.items())
    )
    texts = [
        f"{d.source.name} alone has {listing(alone, limit=5)}"
        for d, alone in (
            (train, [c for c in ours if c not in theirs]),
            (val, [c for c in theirs if c not in ours]),
        )
        if alone
    ]
    names = f"{train.source.name} and {val.source.name}"
    message = f"the categories of {names} differ: {'; '.join(texts) or 'their order'}"
    path = val.source.panoptic_json
    return Finding("categories-differ", val.source.name, path, None, message)


def _only_in_val(train: list[DatasetStatistics], val: DatasetStatistics) -> list[Finding]:
    seen = {id_ for dataset in train for id_ in dataset.segments}
    names = listing((dataset.source.name for dataset in train), limit=5)
    return [
        Finding(
            "class-only-in-val",
            val.source.name,
            val.source.panoptic_json,
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
        Finding(
            "class-crowd-only",
            train[0].source.name,
            train[0].source.panoptic_json,
            id_,
            f"{train[0].source.panoptic_json}: class {id_} ({name}) is a thing, but all its "
            f"{segments[id_]} segments in {names} are crowds: no object of it can be learnt",
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
