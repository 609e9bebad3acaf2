"""Compare the speed of our mapper with Detectron2's on separate annotations of the same images."""

import itertools
import tempfile
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetMapper
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask

from eseg_d2.apps.benchmarks.measure import take_turns
from eseg_d2.data.datasets.builtin import require_datasets
from eseg_d2.data.datasets.panoptic_format import dataset_dicts
from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.engine import load_config
from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.evaluation.instance import panoptic_to_coco_instances

__all__ = ["benchmark_loader"]


def benchmark_loader(config_file: str, *, images: int, repeats: int) -> dict:
    """Time the mappers in turns on the same images of DATASETS.TRAIN, in one process.

    Detectron2's mapper reads a semantic png, and instance masks that are generated beforehand (here
    in a temporary folder), both as run-length masks and as polygons, which COCO uses and which are
    cheaper.

    Args:
        config_file: config of a panoptic model, whose augmentations and data are used.
        images: number of images: the first ones of the data set that have things.
        repeats: timed rounds, after one to warm up.

    Returns:
        {"images": how many there were, "seconds": {name: {"median", "min", "max"}} for all of them,
        "ratios": {name: how many times as fast our mapper is}}.

    Raises:
        ValueError: no image has things.
    """
    cfg = load_config(config_file, [])
    name = cfg.DATASETS.TRAIN[0]
    require_datasets([name])
    # Detectron2 skips images without instances
    usable = (r for r in dataset_dicts(name) if any(s["isthing"] for s in r["segments_info"]))
    records = list(itertools.islice(usable, images))
    if not records:
        raise ValueError(
            f"no image of {name} has things, which Detectron2's mapper needs; choose the config of "
            "a panoptic data set"
        )
    with tempfile.TemporaryDirectory() as folder:
        ours = PanopticMapper(cfg, name)
        calls = {"ours": _caller(ours, records)}
        separated = _separated(name, cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES, records, Path(folder))
        for kind in ("bitmask", "polygon"):
            cfg.INPUT.MASK_FORMAT = kind
            # our augmentations: Detectron2's own crop before resizing, which is cheaper
            augmentations = ours.augmentations.augs
            mapper = DatasetMapper(cfg, is_train=True, augmentations=augmentations)
            calls[f"Detectron2, {kind}s"] = _caller(mapper, separated[kind])
        seconds = take_turns(calls, repeats, "cpu")
    own = seconds["ours"]["median"]
    ratios = {key: value["median"] / own for key, value in seconds.items() if key != "ours"}
    return {"images": len(records), "seconds": seconds, "ratios": ratios}


def _caller(mapper, records: list[dict]):
    return lambda: [mapper(record) for record in records]


def _separated(name: str, semantic_classes: str, records, folder: Path) -> dict[str, list[dict]]:
    """Return the records in the form of Detectron2's separated data sets, by mask format."""
    truth = GroundTruth(name, semantic_classes)
    truth.records = {record["file_name"]: record for record in records}
    instances = panoptic_to_coco_instances(truth)["annotations"]
    by_kind = {"bitmask": [], "polygon": []}
    for i, record in enumerate(records):
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), truth.semantic_map(record["file_name"]).astype(np.uint8))
        annotations = [a for a in instances if a["image_id"] == i and not a["iscrowd"]]
        plain = {key: record[key] for key in ("file_name", "image_id")}
        plain["sem_seg_file_name"] = str(path)
        masks = [
            {
                "bbox": a["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": truth.label_space.contiguous_to_roi[a["category_id"]],
                "iscrowd": 0,
                "segmentation": a["segmentation"],
            }
            for a in annotations
        ]
        polygons = [{**a, "segmentation": _polygons(a["segmentation"])} for a in masks]
        polygons = [a for a in polygons if a["segmentation"]]
        by_kind["bitmask"].append({**plain, "annotations": masks})
        by_kind["polygon"].append({**plain, "annotations": polygons})
    return by_kind


def _polygons(rle: dict) -> list[list[float]]:
    mask = coco_mask.decode(rle)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [c.ravel().astype(float).tolist() for c in contours if len(c) >= 3]
