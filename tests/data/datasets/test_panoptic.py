import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

import eseg_d2  # noqa: F401, registers
from eseg_d2.data.datasets.availability import require_datasets
from eseg_d2.data.datasets.panoptic import metadata_from_categories, register_panoptic
from eseg_d2.data.panoptic_png import read_panoptic_png

CATEGORIES = [
    {"id": 12, "name": "tree", "isthing": 0, "color": [0, 255, 0]},
    {"id": 3, "name": "cat", "isthing": 1, "color": [255, 0, 0]},
]


@pytest.fixture
def tree(tmp_path):
    """A data set of one image in a folder with a dot in its name."""
    folder = tmp_path / "my.data"
    for name in "images", "panoptic":
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(folder / "images" / "a.jpg")
    ids = np.zeros((4, 6, 3), dtype=np.uint8)
    ids[:, :3, 0], ids[:, 3:, 1] = 9, 1
    Image.fromarray(ids).save(folder / "panoptic" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "a.png",
                "segments_info": [
                    {"id": 9, "category_id": 3, "area": 12, "iscrowd": 0},
                    {"id": 256, "category_id": 12, "area": 12},
                ],
            }
        ],
        "categories": CATEGORIES,
    }
    return folder, content


def load(folder, content):
    (folder / "panoptic.json").write_text(
        content if isinstance(content, str) else json.dumps(content)
    )
    register_panoptic(
        "test_tree",
        image_root=str(folder / "images"),
        panoptic_root=str(folder / "panoptic"),
        panoptic_json=str(folder / "panoptic.json"),
        metadata=metadata_from_categories(CATEGORIES),
    )
    try:
        return DatasetCatalog.get("test_tree")
    finally:
        DatasetCatalog.remove("test_tree")
        MetadataCatalog.remove("test_tree")


def test_records_speak_contiguous_ids(tree):
    folder, content = tree
    (record,) = load(folder, content)
    assert record["file_name"] == str(folder / "images" / "a.jpg")
    assert (record["height"], record["width"]) == (4, 6)
    first, second = record["segments_info"]
    assert (first["category_id"], first["isthing"], first["iscrowd"]) == (1, True, 0)
    assert (second["category_id"], second["isthing"], second["iscrowd"]) == (0, False, 0)
    assert np.unique(read_panoptic_png(record["pan_seg_file_name"])).tolist() == [9, 256]


def test_errors_name_file_and_id(tree):
    folder, content = tree
    with pytest.raises(ValueError, match="panoptic.json is not valid json"):
        load(folder, "{")
    with pytest.raises(ValueError, match="lacks 'annotations'"):
        load(folder, {"images": []})
    with pytest.raises(ValueError, match="annotates no image"):
        load(folder, {**content, "annotations": []})
    with pytest.raises(ValueError, match="a.png is of image 1, which is not"):
        load(folder, {**content, "images": []})
    content["annotations"][0]["segments_info"][0]["category_id"] = 99
    with pytest.raises(ValueError, match=r"panoptic.json, a.png: unknown category ids \[99\]"):
        load(folder, content)


@pytest.mark.parametrize("split", ["train", "val"])
def test_cityscapes_loader_agrees_with_detectron2(scenes, split):
    from detectron2.data.datasets.cityscapes_panoptic import load_cityscapes_panoptic

    name = f"scenes_cityscapes_panoptic_{split}"
    metadata = MetadataCatalog.get(name)
    paths = metadata.image_root, metadata.panoptic_root, metadata.panoptic_json
    theirs = load_cityscapes_panoptic(*paths, metadata.as_dict())
    theirs = {record["image_id"]: record for record in theirs}
    ours = DatasetCatalog.get(name)
    assert len(ours) == len(theirs) > 0
    for record in ours:
        other = theirs[record["image_id"]]
        assert record["file_name"] == other["file_name"]
        assert record["pan_seg_file_name"] == other["pan_seg_file_name"]
        for a, b in zip(record["segments_info"], other["segments_info"], strict=True):
            assert {k: a[k] for k in b} == b


def test_coco_scenes_agree_with_cityscapes_scenes(scenes):
    def contents(name):
        names = MetadataCatalog.get(name).thing_classes
        return sorted(
            sorted((names[s["category_id"]], s["area"]) for s in record["segments_info"])
            for record in DatasetCatalog.get(name)
        )

    assert contents("scenes_coco_panoptic_val") == contents("scenes_cityscapes_panoptic_val")


def test_coco_keeps_its_names_and_gets_our_loader():
    metadata = MetadataCatalog.get("coco_2017_val_panoptic")
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert metadata.json_file.endswith("instances_val2017.json")
    with pytest.raises(FileNotFoundError) as error:
        require_datasets(["coco_2017_val_panoptic"])
    message = str(error.value)
    assert "DETECTRON2_DATASETS" in message and "panoptic_val2017.json" in message
    assert "datasets/README.md" in message
    assert len(message.splitlines()) < 8


def test_missing_and_unknown_data_sets():
    with pytest.raises(ValueError, match="cityscapes_fine_panoptic_train"):
        require_datasets(["cityscapes_fine_panoptc_train"])
    with pytest.raises(FileNotFoundError, match="python datasets/prepare_cityscapes.py"):
        require_datasets(["cityscapes_fine_panoptic_train"])
