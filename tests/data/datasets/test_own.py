import json

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

import eseg_d2  # noqa: F401, registers
from eseg_d2.data.datasets.own import register_own
from eseg_d2.engine import load_config

CAT = '{"id": 1, "name": "cat", "isthing": 1}'


@pytest.fixture
def entries(scenes):
    """The COCO scenes as if they were a user's: found by the configuration alone."""
    root = scenes / "street_scenes" / "coco"
    yield [
        {
            "name": f"test_mine_{split}",
            "images": str(root / f"{split}2017"),
            "panoptic_png": str(root / f"panoptic_{split}2017"),
            "panoptic_json": str(root / "annotations" / f"panoptic_{split}2017.json"),
        }
        for split in ("train", "val")
    ]
    for split in "train", "val":
        if f"test_mine_{split}" in DatasetCatalog.list():
            DatasetCatalog.remove(f"test_mine_{split}")
        MetadataCatalog.pop(f"test_mine_{split}", None)


def config(root, folder, entries):
    path = folder / "mine.yaml"
    content = {
        "_BASE_": str(root / "configs" / "scenes" / "Base-Scenes-Panoptic.yaml"),
        "DATASETS": {
            "PANOPTIC": entries,
            "TRAIN": ["test_mine_train"],
            "TEST": ["test_mine_val"],
        },
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_config_is_all_it_takes(root, entries, tmp_path):
    cfg = load_config(config(root, tmp_path, entries), [])
    with open(entries[0]["panoptic_json"]) as f:
        categories = json.load(f)["categories"]
    assert len(categories) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    assert sum(c["isthing"] for c in categories) == cfg.MODEL.ROI_HEADS.NUM_CLASSES
    assert len(DatasetCatalog.get("test_mine_train")) == 12
    assert MetadataCatalog.get("test_mine_val").thing_classes == [c["name"] for c in categories]
    again = tmp_path / "config.yaml"  # what a run stores builds the same model
    again.write_text(cfg.dump())
    assert yaml.safe_load(load_config(str(again), []).dump()) == yaml.safe_load(cfg.dump())


def test_train_and_test_need_the_same_classes(root, entries, tmp_path):
    with open(entries[1]["panoptic_json"]) as f:
        content = json.load(f)
    content["categories"] = content["categories"][1:]
    entries[1]["panoptic_json"] = str(tmp_path / "other.json")
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="same classes(.|\n)*test_mine_val"):
        load_config(config(root, tmp_path, entries), [])


def test_faults_name_the_data_set(entries, tmp_path):
    entry = entries[0]
    with pytest.raises(ValueError, match="name, images, panoptic_png, panoptic_json"):
        register_own([{"name": "x"}])
    with pytest.raises(FileNotFoundError, match="test_mine_train(.|\n)*nowhere.json"):
        register_own([{**entry, "panoptic_json": "nowhere.json"}])
    path = tmp_path / "bad.json"
    for content, message in (
        ("{", "no json with categories"),
        ("[]", "no json with categories"),
        ('{"categories": []}', "no category"),
        ('{"categories": {"id": 1}}', "no category"),
        ('{"categories": [{"id": 1, "name": "a"}]}', "category 0 in .*bad.json lacks isthing"),
        ('{"categories": [{"id": [], "name": "a", "isthing": 1}]}', r"bad.json has the id \[\]"),
        (f'{{"categories": [{CAT}, {CAT}]}}', r"bad.json share an id: \[1, 1\]"),
        ("[" * 200_000, "no json with categories"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            register_own([{**entry, "panoptic_json": str(path)}])
