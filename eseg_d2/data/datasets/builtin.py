"""The data sets that are registered on import: COCO, Cityscapes, CamVid, street scenes.

COCO and Cityscapes keep Detectron2's names, metadata and paths; the loaders are ours. They read
the published panoptic files alone, name file and id in their errors, allow dots in paths, and
work on Detectron2's main as well, whose Cityscapes loaders import a module internal to Meta.
"""

import os

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from eseg_d2.data.datasets.camvid import register_camvid
from eseg_d2.data.datasets.json_entries import join_inside
from eseg_d2.data.datasets.panoptic import metadata_from_categories, register_panoptic

__all__ = ["dataset_root", "register_all"]

_COCO = ("coco_2017_train_panoptic", "coco_2017_val_panoptic", "coco_2017_val_100_panoptic")
_SCENE_CLASSES = {
    *("road", "sidewalk", "building", "pole", "traffic sign", "vegetation", "terrain", "sky"),
    *("person", "rider", "car", "truck", "bicycle"),
}


def dataset_root() -> str:
    """The folder of all data sets: the environment's DETECTRON2_DATASETS, or ``datasets``."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def register_all() -> None:
    """Register every data set named above. Reads no file."""
    root = dataset_root()
    for name in _COCO:
        _take_over_coco(name)
    cityscapes = _cityscapes_categories()
    for split in "train", "val":
        _register_cityscapes(
            f"cityscapes_fine_panoptic_{split}",
            os.path.join(root, "cityscapes"),
            split,
            metadata_from_categories(cityscapes),
        )
        _register_cityscapes(
            f"scenes_cityscapes_panoptic_{split}",
            os.path.join(root, "street_scenes", "cityscapes"),
            split,
            metadata_from_categories(cityscapes),
        )
        _register_scenes_coco(split, root)
    register_camvid(os.path.join(root, "camvid"))


def _cityscapes_categories() -> list[dict]:
    return sorted(CITYSCAPES_CATEGORIES, key=lambda c: c["trainId"])


def _take_over_coco(name: str) -> None:
    if name not in DatasetCatalog.list():  # a Detectron2 without it
        return
    known = MetadataCatalog.get(name).as_dict()
    paths = {key: known.pop(key) for key in ("image_root", "panoptic_root", "panoptic_json")}
    known.pop("name")

    def image_path(image: dict, annotation: dict) -> str:
        file_name = image.get("file_name") or os.path.splitext(annotation["file_name"])[0] + ".jpg"
        return join_inside(paths["image_root"], file_name)

    register_panoptic(name, **paths, metadata=known, image_path=image_path)


def _register_cityscapes(name: str, root: str, split: str, metadata: dict) -> None:
    image_root = os.path.join(root, "leftImg8bit", split)
    gt_fine = os.path.join(root, "gtFine")

    def image_path(image: dict, annotation: dict) -> str:
        image_id = annotation["image_id"]
        city = image_id.split("_")[0]
        return join_inside(image_root, os.path.join(city, f"{image_id}_leftImg8bit.png"))

    register_panoptic(
        name,
        image_root=image_root,
        panoptic_root=os.path.join(gt_fine, f"cityscapes_panoptic_{split}"),
        panoptic_json=os.path.join(gt_fine, f"cityscapes_panoptic_{split}.json"),
        metadata=metadata,
        image_path=image_path,
        gt_dir=os.path.join(gt_fine, split),
        evaluator_type="cityscapes_panoptic_seg",
    )


def _register_scenes_coco(split: str, root: str) -> None:
    root = os.path.join(root, "street_scenes", "coco")
    categories = [c for c in _cityscapes_categories() if c["name"] in _SCENE_CLASSES]
    register_panoptic(
        f"scenes_coco_panoptic_{split}",
        image_root=os.path.join(root, f"{split}2017"),
        panoptic_root=os.path.join(root, f"panoptic_{split}2017"),
        panoptic_json=os.path.join(root, "annotations", f"panoptic_{split}2017.json"),
        metadata=metadata_from_categories(categories),
        evaluator_type="coco_panoptic_seg",
    )
