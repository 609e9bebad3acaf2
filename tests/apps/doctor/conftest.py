"""A tiny valid panoptic data set, for tests to break."""

import copy
import json
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from eseg_d2.data.panoptic_png import read_panoptic_png, segment_id_to_rgb

HEIGHT, WIDTH = 24, 40
CATEGORIES = [
    {"id": 7, "name": "road", "isthing": 0},
    {"id": 90, "name": "car", "isthing": 1},
    {"id": 3, "name": "sky", "isthing": 0},
]


def segment_map() -> np.ndarray:
    """Draw void (0), road (1), sky (300), two cars (70000, 70001) and a crowd of cars (70002)."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    ids[2:22, 2:38] = 1
    ids[2:8, 2:38] = 300
    ids[10:14, 5:11] = 70000
    ids[10:14, 20:29] = 70001
    ids[16:20, 20:30] = 70002
    return ids


def segments_info() -> list[dict]:
    return [
        {"id": 1, "category_id": 7, "area": 404, "bbox": [2, 8, 36, 14], "iscrowd": 0},
        {"id": 300, "category_id": 3, "area": 216, "bbox": [2, 2, 36, 6], "iscrowd": 0},
        {"id": 70000, "category_id": 90, "area": 24, "bbox": [5, 10, 6, 4], "iscrowd": 0},
        {"id": 70001, "category_id": 90, "area": 36, "bbox": [20, 10, 9, 4], "iscrowd": 0},
        {"id": 70002, "category_id": 90, "area": 40, "bbox": [20, 16, 10, 4], "iscrowd": 1},
    ]


class TinySplit:
    """One split on disk; tests break it by changing ``content`` or the files."""

    def __init__(self, root: Path, name: str, first_id: int, count: int):
        self.name, self.root = name, root / name
        self.json = self.root / "panoptic.json"
        self.images, self.annotations = [], []
        self.categories = copy.deepcopy(CATEGORIES)
        self.content = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": self.categories,
        }
        for folder in "images", "pngs":
            (self.root / folder).mkdir(parents=True)
        for id_ in range(first_id, first_id + count):
            self._add(id_)

    def _add(self, id_: int) -> None:
        pixels = np.random.default_rng(id_).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.root / f"images/{id_}.jpg")
        Image.fromarray(segment_id_to_rgb(segment_map())).save(self.root / f"pngs/{id_}.png")
        size = {"width": WIDTH, "height": HEIGHT}
        self.images.append({"id": id_, "file_name": f"{id_}.jpg", **size})
        segments = segments_info()
        self.annotations.append(
            {"image_id": id_, "file_name": f"{id_}.png", "segments_info": segments}
        )

    def segments(self, index: int = 0) -> list[dict]:
        return self.annotations[index]["segments_info"]

    def image(self, index: int = 0) -> Path:
        return self.root / "images" / f"{self.images[index]['id']}.jpg"

    def png(self, index: int = 0) -> Path:
        return self.root / "pngs" / f"{self.images[index]['id']}.png"

    def put(self, path: str, value) -> None:
        """Set the value at a path in the JSON such as "images/0/width"; ... removes it."""
        *parents, last = [int(key) if key.isdecimal() else key for key in path.split("/")]
        place = reduce(getitem, parents, self.content)
        if value is ...:
            del place[last]
        else:
            place[last] = value

    def edit_image(self, change, **options) -> None:
        """Apply ``change`` to the first image, and save it with the options of PIL."""
        change(Image.open(self.image())).save(self.image(), **options)

    def edit_png(self, change, index: int = 0, **options) -> None:
        """Apply ``change`` to an image with the colours of a PNG, and save it as ``edit_image``."""
        change(Image.open(self.png(index))).save(self.png(index), **options)

    def redraw(self, change, index: int = 0) -> None:
        """Apply ``change`` to an array of the segment ids of a PNG, and write them back."""
        ids = read_panoptic_png(str(self.png(index)))
        change(ids)
        Image.fromarray(segment_id_to_rgb(ids)).save(self.png(index))

    def entry(self) -> dict:
        """Return the split's entry of DATASETS.PANOPTIC."""
        return {
            "name": self.name,
            "images": str(self.root / "images"),
            "panoptic_png": str(self.root / "pngs"),
            "panoptic_json": str(self.json),
        }

    def write(self) -> None:
        if self.content is not None:
            self.json.write_text(json.dumps(self.content))


class Tiny:
    """A train split of three images (11 to 13) and a val split of two (21 and 22)."""

    def __init__(self, root: Path):
        self.train = TinySplit(root, "tiny_train", 11, 3)
        self.val = TinySplit(root, "tiny_val", 21, 2)

    def config(self) -> CfgNode:
        """Write the JSON files of both splits, and return a config that lists them."""
        cfg = get_cfg()
        for split in self.train, self.val:
            split.write()
        cfg.DATASETS.PANOPTIC = [self.train.entry(), self.val.entry()]
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (self.train.name,), (self.val.name,)
        return cfg

    def check(self, cfg: CfgNode | None = None):
        """Return the doctor's report on the data sets of a config, by default :meth:`config`."""
        from eseg_d2.apps.doctor import check_datasets, sources_from_config

        return check_datasets(sources_from_config(cfg or self.config()), workers=1)


@pytest.fixture
def tiny(tmp_path):
    """Write the two splits, and unregister them afterwards if a test registers them."""
    yield Tiny(tmp_path)
    for catalog in DatasetCatalog, MetadataCatalog:
        for name in "tiny_train", "tiny_val":
            if name in catalog:
                catalog.remove(name)
