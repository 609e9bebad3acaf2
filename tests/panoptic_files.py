"""Write the images of a data set, and read what a conversion to the panoptic format made of it."""

import json

import numpy as np
from PIL import Image

from eseg_d2.data.panoptic_png import read_panoptic_png


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def contents(folder):
    """Return the bytes of each file by its relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read_result(output):
    """Return the content of panoptic.json, and of each image segments_info and segment ids."""
    content = json.loads((output / "panoptic.json").read_text())
    pngs = [output / "panoptic" / a["file_name"] for a in content["annotations"]]
    maps = [read_panoptic_png(str(png)) for png in pngs]
    return content, [a["segments_info"] for a in content["annotations"]], maps


def check_segments(segment_map, segments_info):
    """Check that ids, areas and boxes agree with the PNG."""
    assert set(np.unique(segment_map).tolist()) - {0} == {s["id"] for s in segments_info}
    for segment in segments_info:
        y, x = np.nonzero(segment_map == segment["id"])
        assert segment["area"] == len(x)
        assert segment["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]


class LabelMaps:
    """Builds folders of images, labels and instances; ``arguments`` convert them."""

    def __init__(self, root, categories):
        self.root = root
        self.arguments = {key: root / key for key in ("images", "labels", "instances")}
        self.arguments |= {"categories": root / "categories.json", "output": root / "output"}
        self.arguments["workers"] = 1
        for key in "images", "labels", "instances":
            self.arguments[key].mkdir()
        (root / "categories.json").write_text(json.dumps(categories))

    def add(self, name, labels, instances=None, suffix=".jpg"):
        self.write("labels", name, labels)
        if instances is not None:
            self.write("instances", name, instances)
        pixels = np.zeros((*np.shape(labels), 3), np.uint8)
        save(self.root / "images" / f"{name}{suffix}", pixels)

    def write(self, folder, name, values):
        save(self.root / folder / f"{name}.png", np.asarray(values, np.uint16))
