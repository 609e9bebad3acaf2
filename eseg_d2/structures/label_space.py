"""The one place where ids of classes are mapped from one space to another."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["SEMANTIC_CLASSES", "LabelSpace"]

SEMANTIC_CLASSES = ("all", "stuff_and_things")


@dataclass(frozen=True)
class LabelSpace:
    """The four id spaces of a panoptic data set, and the maps between them.

    - dataset id: ``category_id`` of the annotation files; any integers, in any order.
    - contiguous id: 0 .. N-1 over all classes, things and stuff in any order. Detectron2's
      metadata names classes by it, and everything that leaves the model speaks it.
    - semantic train id: channel of the semantic head. With ``semantic_classes="all"`` the
      contiguous id itself; with ``"stuff_and_things"`` 0 is every thing and 1.. are the stuff
      classes in contiguous order (Panoptic FPN).
    - ROI class: 0 .. number of things - 1, in contiguous order; what the box head predicts.

    Attributes:
        names: class names, by contiguous id.
        dataset_ids: dataset ids, by contiguous id.
        thing_ids: contiguous ids of the things, ascending.
        ignore_label: label of pixels without a class in semantic targets.
        semantic_classes: ``"all"`` or ``"stuff_and_things"``.
    """

    names: tuple[str, ...]
    dataset_ids: tuple[int, ...]
    thing_ids: tuple[int, ...]
    ignore_label: int = 255
    semantic_classes: str = "all"

    def __post_init__(self):
        if self.semantic_classes not in SEMANTIC_CLASSES:
            raise ValueError(
                f"MODEL.PANOPTIC.SEMANTIC_CLASSES is {self.semantic_classes!r}; "
                f"expected one of {SEMANTIC_CLASSES}"
            )
        if not len(self.names) == len(self.dataset_ids) == len(set(self.dataset_ids)):
            raise ValueError(
                f"{len(self.names)} class names for dataset ids {self.dataset_ids}: "
                "each class needs one name and a dataset id of its own"
            )
        if 0 <= self.ignore_label < self.num_semantic:
            raise ValueError(
                f"the ignored label {self.ignore_label} is also one of the "
                f"{self.num_semantic} semantic classes: choose another ignore_label"
            )

    @classmethod
    def from_metadata(cls, metadata, semantic_classes: str = "all") -> "LabelSpace":
        """Read the label space from a data set's Detectron2 metadata.

        Args:
            metadata: of a panoptic data set, with ``thing_classes`` and ``stuff_classes`` by
                contiguous id and the two ``*_dataset_id_to_contiguous_id`` maps (Detectron2's
                "standard" panoptic format).
            semantic_classes: ``"all"`` or ``"stuff_and_things"``.

        Raises:
            ValueError: the metadata is not of that kind; the message names what is wrong.
        """
        where = f"the metadata of data set {metadata.get('name', '?')!r}"
        things = metadata.get("thing_dataset_id_to_contiguous_id")
        stuff = metadata.get("stuff_dataset_id_to_contiguous_id")
        if things is None or stuff is None:
            raise ValueError(
                f"{where} has no thing_/stuff_dataset_id_to_contiguous_id: it is no panoptic "
                "data set. Use a panoptic one, e.g. coco_2017_train_panoptic."
            )
        contiguous = sorted([*things.values(), *stuff.values()])
        if contiguous != list(range(len(contiguous))):
            raise ValueError(
                f"{where} gives contiguous ids {contiguous} to things and stuff together; "
                f"expected 0 .. {len(contiguous) - 1}, each once. "
                "Data sets named *_separated number them apart: use the one without that ending."
            )
        to_dataset = {c: d for ids in (stuff, things) for d, c in ids.items()}
        names = [
            (metadata.thing_classes if c in things.values() else metadata.stuff_classes)[c]
            for c in contiguous
        ]
        return cls(
            names=tuple(names),
            dataset_ids=tuple(to_dataset[c] for c in contiguous),
            thing_ids=tuple(sorted(things.values())),
            ignore_label=metadata.get("ignore_label", 255),
            semantic_classes=semantic_classes,
        )

    @property
    def num_classes(self) -> int:
        """Number of classes, things and stuff."""
        return len(self.names)

    @property
    def num_things(self) -> int:
        """Number of ROI classes."""
        return len(self.thing_ids)

    @property
    def num_semantic(self) -> int:
        """Number of channels of the semantic head."""
        stuff_only = self.semantic_classes == "stuff_and_things"
        return self.num_classes - self.num_things + 1 if stuff_only else self.num_classes

    @cached_property
    def is_thing(self) -> np.ndarray:
        """(N,) bool, by contiguous id."""
        mask = np.zeros(self.num_classes, dtype=bool)
        mask[list(self.thing_ids)] = True
        return mask

    @cached_property
    def contiguous_to_semantic(self) -> np.ndarray:
        """(N,) int64: the semantic train id of each contiguous id."""
        if self.semantic_classes == "all":
            return np.arange(self.num_classes)
        return np.where(self.is_thing, 0, np.cumsum(~self.is_thing))

    @cached_property
    def semantic_to_contiguous(self) -> np.ndarray:
        """(number of semantic classes,) int64; -1 for the class "all things"."""
        table = np.full(self.num_semantic, -1)
        contiguous = np.arange(self.num_classes)
        if self.semantic_classes == "stuff_and_things":
            contiguous = contiguous[~self.is_thing]
        table[self.contiguous_to_semantic[contiguous]] = contiguous
        return table

    @cached_property
    def contiguous_to_roi(self) -> np.ndarray:
        """(N,) int64: the ROI class of each contiguous id; -1 for stuff."""
        return np.where(self.is_thing, np.cumsum(self.is_thing) - 1, -1)

    @cached_property
    def roi_to_contiguous(self) -> np.ndarray:
        """(number of things,) int64."""
        return np.array(self.thing_ids, dtype=np.int64)

    @property
    def semantic_names(self) -> tuple[str, ...]:
        """Class names by semantic train id."""
        ids = self.semantic_to_contiguous
        return tuple(self.names[c] if c >= 0 else "things" for c in ids)

    def to_dataset(self, contiguous_ids) -> np.ndarray:
        """Return the dataset ids of contiguous ids (any shape)."""
        return np.array(self.dataset_ids, dtype=np.int64)[np.asarray(contiguous_ids, dtype=int)]

    def to_contiguous(self, dataset_ids) -> np.ndarray:
        """Return the contiguous ids of dataset ids (any shape).

        Raises:
            ValueError: an id that no class has; the message lists those there are.
        """
        ids = np.asarray(dataset_ids, dtype=np.int64)
        known = np.array(self.dataset_ids, dtype=np.int64)
        order = np.argsort(known)
        slot = np.searchsorted(known, ids, sorter=order)
        found = order[np.minimum(slot, len(known) - 1)]
        if not (known[found] == ids).all():
            unknown = sorted(set(ids[known[found] != ids].tolist()))
            raise ValueError(
                f"unknown category ids {unknown}; the data set has {sorted(self.dataset_ids)}"
            )
        return found
