"""Scenes as COCO panoptic files. Category ids and colours are Cityscapes' label ids and colours."""

from pathlib import Path
from typing import Any

import numpy as np

from eseg_d2.data.panoptic_png import count_segments, segment_id_to_rgb
from eseg_d2.utils.files import write_image
from eseg_d2.utils.json_yaml import write_json

from .labels import CATEGORIES
from .render import Scene

__all__ = ["TOP_LEVEL", "finish", "prepare", "write_scene"]

TOP_LEVEL = (
    "train2017",
    "val2017",
    "panoptic_train2017",
    "panoptic_val2017",
    "annotations",
)
"""Folders of a finished data set."""

_FIRST_IMAGE_ID = {"train": 1, "val": 1_000_001}


def prepare(root: Path, split: str, count: int) -> None:
    """Create the folders of a split."""
    for folder in (f"{split}2017", f"panoptic_{split}2017", "annotations"):
        (root / folder).mkdir(exist_ok=True, parents=True)


def _segments(instance_ids: np.ndarray) -> list[dict[str, Any]]:
    """Return COCO's segments_info: the segments of ``instance_ids`` that are not void."""
    things = {c.id: c.hasInstances for c in CATEGORIES}
    segments = []
    for number, pixels in count_segments(instance_ids).items():
        category = number if number < 1000 else number // 1000
        if category not in things:
            continue
        segments.append(
            {
                "id": number,
                "category_id": category,
                "area": pixels.area,
                "bbox": list(pixels.bbox),
                "iscrowd": int(things[category] and number < 1000),
            }
        )
    return segments


def write_scene(root: Path, split: str, index: int, scene: Scene) -> dict[str, Any]:
    """Write the image and the panoptic png of one scene; void is 0 in the png.

    Returns:
        The "images" and the "annotations" entry of the scene.
    """
    image_id = _FIRST_IMAGE_ID[split] + index
    stem = f"{image_id:012d}"
    segments = _segments(scene.instance_ids)
    table = np.zeros(1 << 16, np.uint16)
    ids = [segment["id"] for segment in segments]
    table[ids] = ids
    coded = table[scene.instance_ids]
    write_image(root / f"{split}2017" / f"{stem}.jpg", scene.image)
    write_image(root / f"panoptic_{split}2017" / f"{stem}.png", segment_id_to_rgb(coded))
    height, width = scene.label_ids.shape
    return {
        "image": {"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width},
        "annotation": {
            "image_id": image_id,
            "file_name": f"{stem}.png",
            "segments_info": segments,
        },
    }


def finish(root: Path, split: str, records: list[dict[str, Any]]) -> None:
    """Write the panoptic json of a split once all its scenes are written."""
    categories = [
        {
            "id": c.id,
            "name": c.name,
            "supercategory": c.category,
            "isthing": int(c.hasInstances),
            "color": list(c.color),
        }
        for c in CATEGORIES
    ]
    content = {
        "info": {"description": f"street scenes of a toy town, {split}"},
        "licenses": [],
        "images": [record["image"] for record in records],
        "annotations": [record["annotation"] for record in records],
        "categories": categories,
    }
    write_json(root / "annotations" / f"panoptic_{split}2017.json", content)
