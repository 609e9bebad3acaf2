"""Names and colours of a model's classes, in the id space of its predictions."""

from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata

from eseg_d2.data.datasets.panoptic_format import is_panoptic
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.visualization.overlay import Color
from eseg_d2.visualization.panels import class_color

__all__ = ["VOID_CLASS", "ClassTable"]

# Label maps are uint8 and palette pngs have 256 colours: this one says "no class".
VOID_CLASS = 255


@dataclass(frozen=True)
class ClassTable:
    """What the class ids of predictions mean.

    Attributes:
        names: names by class id.
        colors: RGB, 0 .. 255, by class id.
        from_semantic: class id of each channel of the semantic head; ``VOID_CLASS`` for the channel
            of all things in a panoptic model.
        from_roi: class id of each class of the box head.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    from_semantic: tuple[int, ...] = ()
    from_roi: tuple[int, ...] = ()

    @classmethod
    def of_config(cls, cfg: CfgNode) -> "ClassTable":
        """Return the classes of a model from the metadata of its first data set.

        The files of the data set need not exist.

        Raises:
            ValueError: the data set is unknown, or names fewer classes than the model has.
        """
        names = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
        if not names:
            raise ValueError("DATASETS.TEST and DATASETS.TRAIN are empty: classes are unknown")
        metadata = MetadataCatalog.get(names[0])
        kind = cfg.MODEL.META_ARCHITECTURE
        if kind == "SemanticSegmentor":
            return _semantic_classes(cfg, metadata)
        if is_panoptic(metadata.name):
            return _panoptic_classes(cfg, metadata)
        head = cfg.MODEL.RETINANET if kind == "RetinaNet" else cfg.MODEL.ROI_HEADS
        return _plain(metadata, "thing", head.NUM_CLASSES)

    def drawing_metadata(self) -> Metadata:
        """Return Detectron2 metadata with names and colours of things and stuff by class id."""
        names, colors = list(self.names), list(self.colors)
        return Metadata(
            thing_classes=names, stuff_classes=names, thing_colors=colors, stuff_colors=colors
        )

    def palette(self) -> np.ndarray:
        """Return (256, 3) uint8 RGB: the colours, then black."""
        colors = np.zeros((256, 3), np.uint8)
        known = np.array(self.colors[:VOID_CLASS], np.uint8).reshape(-1, 3)
        colors[: len(known)] = known
        return colors


def _panoptic_classes(cfg: CfgNode, metadata: Metadata) -> ClassTable:
    space = LabelSpace.from_metadata(metadata, cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES)
    contiguous = space.semantic_to_contiguous
    return ClassTable(
        space.names,
        _contiguous_colors(space, metadata),
        tuple(np.where(contiguous < 0, VOID_CLASS, contiguous).tolist()),
        tuple(space.roi_to_contiguous.tolist()),
    )


def _contiguous_colors(space: LabelSpace, metadata: Metadata) -> tuple:
    things = _colors(metadata, "thing", space.num_classes)
    stuff = _colors(metadata, "stuff", space.num_classes)
    return tuple(things[c] if thing else stuff[c] for c, thing in enumerate(space.is_thing))


def _semantic_classes(cfg: CfgNode, metadata: Metadata) -> ClassTable:
    count = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if not is_panoptic(metadata.name):
        return _plain(metadata, "stuff", count)
    space = LabelSpace.from_metadata(metadata, cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES)
    colors = _contiguous_colors(space, metadata)
    first_thing = colors[space.thing_ids[0]] if space.thing_ids else (0, 0, 0)
    by_channel = [colors[c] if c >= 0 else first_thing for c in space.semantic_to_contiguous]
    return ClassTable(space.semantic_names, tuple(by_channel), tuple(range(count)))


def _plain(metadata: Metadata, kind: str, count: int) -> ClassTable:
    names = metadata.get(f"{kind}_classes")
    if names is None or len(names) < count:
        raise ValueError(
            f"the metadata of data set {metadata.get('name')!r} names {len(names or ())} "
            f"{kind}_classes, but the model has {count} classes. Set DATASETS.TEST to the data set "
            "that it was trained on."
        )
    ids = tuple(range(count))
    return ClassTable(tuple(names[:count]), _colors(metadata, kind, count), ids, ids)


def _colors(metadata: Metadata, kind: str, count: int) -> tuple[Color, ...]:
    return tuple(class_color(metadata, kind, c) for c in range(count))
