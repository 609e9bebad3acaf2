"""Training samples of a data set as the model sees them: augmented, with the targets."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.structures import Instances
from detectron2.utils.env import seed_all_rng
from tqdm import tqdm

from eseg_d2.apps.report.pictures import (
    NOT_LABELLED,
    LegendEntry,
    PictureBudget,
    Sample,
    legend_of,
    paint_classes,
    percent,
    semantic_colors,
    short_path,
    with_colors,
)
from eseg_d2.data.datasets.builtin import require_datasets
from eseg_d2.data.datasets.panoptic_format import dataset_dicts, is_panoptic
from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.visualization.panels import draw_instances, draw_panoptic, resize, side_by_side

__all__ = ["ClassShare", "SampleSet", "draw_samples", "targets_as_panoptic"]


@dataclass(frozen=True)
class ClassShare:
    """A semantic class over all samples: its share of the pixels (0..1), and samples with it."""

    name: str
    color: tuple[int, int, int]
    share: float
    samples: int


@dataclass(frozen=True)
class SampleSet:
    """
    Attributes:
        dataset: its name.
        folder: of its images.
        augmentations: in words and in order.
        samples: for the page.
        rows: of a contact sheet, (H, W, 3) uint8 RGB.
        classes: all of the data set, then "void".
        problems: errors of the files that cannot be read.
        left_out: samples for which the page had no room.
    """

    dataset: str
    folder: str
    augmentations: Sequence[str]
    samples: Sequence[Sample]
    rows: Sequence[np.ndarray]
    classes: Sequence[ClassShare]
    problems: Sequence[str]
    left_out: int


def draw_samples(
    cfg: CfgNode, dataset: str, count: int, *, seed: int = 0, augment: bool = True
) -> SampleSet:
    """Draw random images of a data set as the mapper of the training gives them.

    Args:
        dataset: a registered panoptic data set.
        count: number of images; all of them if there are fewer.
        seed: of the choice of images and of the augmentations.
        augment: False shows the images as their files have them.

    Raises:
        ValueError: the data set is not a panoptic one.
        FileNotFoundError: the data set is not there.
    """
    mapper = _mapper(cfg, dataset, augment)
    metadata = MetadataCatalog.get(dataset)
    drawer = _Drawer(with_colors(metadata, mapper.label_space), mapper.label_space)
    records = dataset_dicts(dataset)
    chosen = np.random.default_rng(seed).permutation(len(records))[:count]
    budget = PictureBudget(planned=len(chosen) * (4 if mapper.with_instances else 2))
    samples, rows, counts, problems = [], [], [], []
    for place in tqdm(chosen.tolist(), desc="samples", unit="image"):
        seed_all_rng(seed + 1 + place)
        try:
            mapped = mapper(records[place])
        except (OSError, ValueError) as error:
            problems.append(str(error))
            continue
        image = _rgb(mapped["image"], mapper.image_format)
        pictures = drawer.pictures(image, mapped, budget.width(image))
        rows.append(_row(mapped, pictures))
        labels = mapped["sem_seg"].numpy()
        counts.append(drawer.count(labels))
        panels = budget.panels(pictures)
        if panels:
            title = short_path(mapped["file_name"], metadata.image_root)
            samples.append(Sample(title, drawer.facts(mapped), panels, drawer.legend(labels)))
    return SampleSet(
        dataset,
        metadata.image_root,
        [str(step) for step in mapper.augmentations.augs],
        samples,
        rows,
        drawer.class_shares(counts),
        problems,
        budget.left_out,
    )


def _mapper(cfg: CfgNode, dataset: str, augment: bool) -> PanopticMapper:
    """Return the mapper of the training, or the same without augmentations."""
    require_datasets([dataset])
    if not is_panoptic(dataset):
        raise ValueError(
            f"{dataset} is not a panoptic data set (Detectron2's own mapper reads it): name one in "
            "the panoptic format, such as those of configs/cityscapes and configs/scenes"
        )
    arguments = PanopticMapper.from_config(cfg, dataset)
    return PanopticMapper(**arguments if augment else {**arguments, "augmentations": []})


class _Drawer:
    """Draws the output of the mapper."""

    def __init__(self, metadata: Metadata, space: LabelSpace):
        self.metadata, self.space = metadata, space
        self.colors = semantic_colors(metadata, space)

    def count(self, labels: np.ndarray) -> np.ndarray:
        """Count the pixels of each semantic class, and of void: (number of classes + 1,)."""
        num = self.space.num_semantic
        labels = np.where(labels == self.space.ignore_label, num, labels)
        return np.bincount(labels.ravel(), minlength=num + 1)

    def class_shares(self, counts: Sequence[np.ndarray]) -> list[ClassShare]:
        """Sum up the counts of all samples."""
        names, colors = [*self.space.semantic_names, "void"], [*self.colors, NOT_LABELLED]
        table = np.array(counts).reshape(-1, len(names))
        shares = table.sum(0) / max(table.sum(), 1)
        present = (table > 0).sum(0)
        return [
            ClassShare(name, color, float(share), int(number))
            for name, color, share, number in zip(names, colors, shares, present, strict=True)
        ]

    def pictures(self, image: np.ndarray, mapped: dict, width: int) -> dict[str, np.ndarray]:
        """Return pictures of one width by caption."""
        labels = mapped["sem_seg"].numpy()
        pictures = {
            "image": resize(image, width),
            "semantic labels": resize(paint_classes(image, labels, self.colors), width),
        }
        if "instances" in mapped:
            segments = targets_as_panoptic(labels, mapped["instances"], self.space)
            pictures["instances"] = self._instances(image, mapped["instances"], width)
            pictures["panoptic"] = draw_panoptic(image, *segments, self.metadata, width=width)
        return pictures

    def _instances(self, image: np.ndarray, instances: Instances, width: int) -> np.ndarray:
        ids = self.space.roi_to_contiguous[instances.gt_classes.numpy()]
        return draw_instances(
            image,
            boxes=instances.gt_boxes.tensor.numpy(),
            masks=instances.gt_masks.tensor.numpy(),
            texts=[self.space.names[c] for c in ids],
            colors=[self.metadata.thing_colors[c] for c in ids],
            width=width,
        )

    def facts(self, mapped: dict) -> list[str]:
        height, width = mapped["sem_seg"].shape
        facts = [f"{width}x{height} pixels of {mapped['width']}x{mapped['height']}"]
        if "instances" in mapped:
            number = len(mapped["instances"])
            facts.append(f"{number} instance{'' if number == 1 else 's'}")
        void = (mapped["sem_seg"] == self.space.ignore_label).float().mean().item()
        return [*facts, f"{percent(void)} void, not trained on"]

    def legend(self, labels: np.ndarray) -> list[LegendEntry]:
        void = LegendEntry("void", NOT_LABELLED)
        return legend_of(labels, self.space.semantic_names, self.colors, void)


def targets_as_panoptic(
    labels: np.ndarray, instances: Instances, space: LabelSpace
) -> tuple[np.ndarray, list[dict]]:
    """Combine the semantic and the instance targets in one panoptic map.

    Args:
        labels: (H, W) integers, semantic train ids or the ignored label.
        instances: with ``gt_masks`` and ``gt_classes`` (ROI classes). Things that no mask covers
            are one segment per class (a crowd), or void if all things are one semantic class.
        space: of the data set.

    Returns:
        (H, W) int32 segment ids, 0 where void; the segments.
    """
    segment_map = np.zeros(labels.shape, np.int32)
    segments = []

    def add(where: np.ndarray, category: int) -> None:
        segment = {"id": len(segments) + 1, "category_id": category}
        segments.append({**segment, "isthing": bool(space.is_thing[category])})
        segment_map[where] = len(segments)

    for semantic, category in enumerate(space.semantic_to_contiguous.tolist()):
        if category >= 0 and (labels == semantic).any():
            add(labels == semantic, category)
    for mask, roi_class in zip(instances.gt_masks.tensor, instances.gt_classes, strict=True):
        add(mask.numpy(), int(space.roi_to_contiguous[roi_class]))
    return segment_map, segments


def _rgb(image: torch.Tensor, image_format: str) -> np.ndarray:
    """Return the (3, H, W) uint8 image of the mapper as (H, W, 3) RGB."""
    pixels = image.numpy().transpose(1, 2, 0)
    return np.ascontiguousarray(pixels[..., ::-1] if image_format == "BGR" else pixels)


def _row(mapped: dict, pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Return a row of the contact sheet, under the name of the file."""
    name = os.path.basename(mapped["file_name"])
    return side_by_side({name if key == "image" else key: p for key, p in pictures.items()})
