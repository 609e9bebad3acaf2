"""What a model found in one image, as numpy arrays, and the names and colours of its classes."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from PIL import Image
from pycocotools import mask as coco_mask

from eseg_d2.data.datasets.panoptic_format import is_panoptic
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.structures.mask_crops import MaskCrops
from eseg_d2.visualization.overlay import Color
from eseg_d2.visualization.panels import class_color

__all__ = ["ClassTable", "InstanceResults", "Prediction", "VOID_CLASS"]

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


@dataclass(frozen=True)
class InstanceResults:
    """The objects in one image, in order of descending score.

    Attributes:
        boxes: (N, 4) float32, x0, y0, x1, y1 in pixels.
        scores: (N,) float32, 0 .. 1.
        classes: (N,) int64 class ids.
        crops: the masks, each inside its box; None for a model without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    crops: MaskCrops | None

    @property
    def masks(self) -> np.ndarray | None:
        """(N, H, W) bool masks, which may overlap; None for a model without masks.

        They are created at each access, and large for many objects in a large image: :meth:`mask`
        creates only one of them.
        """
        return None if self.crops is None else self.crops.tensor().numpy()

    def mask(self, index: int) -> np.ndarray | None:
        """Return the (H, W) bool mask of one object; None for a model without masks."""
        return None if self.crops is None else self.crops.full(index).numpy()


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a model found in one image.

    There is a single id space of classes: every class id is an index into ``class_names``. For
    models on panoptic data sets it is the contiguous id. 255 (``VOID_CLASS``) is no class.

    Attributes:
        kind: "panoptic", "semantic" or "instance".
        size: (H, W) of the image in pixels, and of all maps and masks.
        class_names: class names by class id.
        segments: a dict for each segment: ``id`` (segment id), ``class_id``, ``class_name``,
            ``isthing``, ``score`` (0 .. 1; None for stuff and semantic models), ``area`` (pixels),
            ``share`` (of the image's pixels, 0 .. 1) and ``bbox`` (x, y, width, height in pixels).
            Semantic models have one for each class in the image, whose id is the class id. Instance
            models have one for each object, with ids 1, 2, ... in the order of ``instances``; the
            area is that of the mask, or of the box if there is no mask.
        panoptic: (H, W) int32 segment ids, 0 for void; None unless panoptic.
        semantic: (H, W) uint8 class ids from the semantic head; None for instance models. If the
            head of a panoptic model has one class for all things, its pixels are 255.
        instances: the objects before merging; None for semantic models.
        image: (H, W, 3) uint8 BGR, the input; not copied.
        class_colors: RGB, 0 .. 255, by class id.
    """

    kind: str
    size: tuple[int, int]
    class_names: tuple[str, ...]
    segments: list[dict]
    panoptic: np.ndarray | None = None
    semantic: np.ndarray | None = None
    instances: InstanceResults | None = None
    image: np.ndarray | None = None
    class_colors: tuple[tuple[int, int, int], ...] = ()

    def __repr__(self) -> str:
        names = Counter(segment["class_name"] for segment in self.segments)
        found = ", ".join(f"{n} {name}" if n > 1 else name for name, n in names.items())
        height, width = self.size
        segments = f"{len(self.segments)} segment{'' if len(self.segments) == 1 else 's'}"
        return f"<Prediction: {self.kind}, {width} x {height} pixels, {segments}: {found or '-'}>"

    def draw(self) -> np.ndarray:
        """Return the prediction painted over its image: (h, w, 3) uint8 RGB.

        It has the image's size, or is resized so that its longer side has 640 to 4096 pixels.

        Raises:
            ValueError: there is no ``image``.
        """
        from eseg_d2.inference.drawing import draw_prediction

        if self.image is None:
            raise ValueError("this prediction has no image to draw on: those of a Predictor have")
        return draw_prediction(self.image, self, ClassTable(self.class_names, self.class_colors))

    def save(self, path: str | os.PathLike) -> None:
        """Write the picture that :meth:`draw` returns.

        Raises:
            ValueError: the path ends in neither .png nor .jpg, or there is no ``image``.
            OSError: the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise ValueError(f"cannot save {path}: expected a name that ends in .png or .jpg")
        Image.fromarray(self.draw()).save(path, quality=95)

    def mask(self, segment: dict) -> np.ndarray | None:
        """Return the (H, W) bool mask of one of ``segments``; None for a model without masks."""
        if self.panoptic is not None:
            return self.panoptic == segment["id"]
        if self.instances is not None:
            return self.instances.mask(segment["id"] - 1)
        assert self.semantic is not None  # it is there if the others are not
        return self.semantic == segment["id"]

    def label_map(self) -> np.ndarray:
        """Return (H, W) uint8: the class id of each pixel, 255 for no class.

        For a panoptic model these are the merged classes; for an instance model, the class of the
        object with the highest score at the pixel.

        Raises:
            ValueError: there are more than 255 classes, or the model has no masks.
        """
        if self.kind == "semantic":
            assert self.semantic is not None
            return self.semantic
        if len(self.class_names) > VOID_CLASS:
            raise ValueError(
                f"a label map holds up to {VOID_CLASS} classes; the model has "
                f"{len(self.class_names)}. Use the segments (json) instead."
            )
        if self.panoptic is not None:
            table = np.full(1 + max((s["id"] for s in self.segments), default=0), VOID_CLASS)
            for segment in self.segments:
                table[segment["id"]] = segment["class_id"]
            return table.astype(np.uint8)[self.panoptic]
        assert self.instances is not None
        if self.instances.crops is None:
            raise ValueError("this model gives boxes without masks: there is no label map")
        labels = np.full(self.size, VOID_CLASS, np.uint8)
        for i in reversed(range(len(self.instances.scores))):  # the best is painted last
            labels[self.instances.mask(i)] = self.instances.classes[i]
        return labels

    def as_dict(self) -> dict:
        """Return kind, height, width, class_names and segments as a json can hold them.

        Each segment has its mask as ``segmentation``, in COCO's compressed run-length encoding (as
        ``pycocotools.mask.decode`` reads it), unless the model has no masks.
        """
        segments = []
        for segment in self.segments:
            mask = self.mask(segment)
            shape = {} if mask is None else {"segmentation": _encode(mask)}
            segments.append({**segment, **shape})
        height, width = self.size
        return {
            "kind": self.kind,
            "height": height,
            "width": width,
            "class_names": list(self.class_names),
            "segments": segments,
        }


def _encode(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(x) for x in rle["size"]], "counts": rle["counts"].decode()}
