import json
import re

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

import eseg_d2  # noqa: F401, registers
from eseg_d2.data.datasets.panoptic import register_own
from eseg_d2.engine import Trainer, load_config
from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.evaluation.semantic import SemanticEvaluator

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
    with pytest.raises(ValueError, match="its images is 5, expected a text"):
        register_own([{**entry, "images": 5}])
    with pytest.raises(ValueError, match="several entries with the name test_mine_train"):
        register_own([entry, entry])
    with pytest.raises(FileNotFoundError, match="test_mine_train(.|\n)*nowhere.json"):
        register_own([{**entry, "panoptic_json": "nowhere.json"}])
    path = tmp_path / "bad.json"
    for content, message in (
        ("{", "bad.json is not valid json"),
        ("[]", "no categories"),
        ('{"categories": []}', "no categories"),
        ('{"categories": {"id": 1}}', "no categories"),
        ('{"categories": [{"id": 1, "name": "a"}]}', "category 0 in .*bad.json lacks isthing"),
        ('{"categories": [{"id": [], "name": "a", "isthing": 1}]}', r"bad.json has id \[\]"),
        (f'{{"categories": [{CAT}, {CAT}]}}', r"bad.json share an id: \[1, 1\]"),
        ("[" * 200_000, "bad.json is not valid json"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            register_own([{**entry, "panoptic_json": str(path)}])


@pytest.mark.parametrize("kind", ["PanopticRCNN", "GeneralizedRCNN", "RetinaNet"])
def test_a_model_of_things_for_stuff_alone_is_refused_at_start(root, entries, tmp_path, kind):
    for entry in entries:
        with open(entry["panoptic_json"]) as f:
            content = json.load(f)
        for category in content["categories"]:
            category["isthing"] = 0
        entry["panoptic_json"] = str(tmp_path / f"{entry['name']}.json")
        (tmp_path / f"{entry['name']}.json").write_text(json.dumps(content))
    path = config(root, tmp_path, entries)
    with pytest.raises(ValueError, match="'test_mine_train' has no things") as error:
        load_config(path, ["MODEL.META_ARCHITECTURE", kind])
    bases = re.findall(r"configs/[\w-]+.yaml", str(error.value))
    assert len(bases) == 2
    for base in bases:
        content = yaml.safe_load((tmp_path / "mine.yaml").read_text())
        content["_BASE_"] = str(root / base)
        (tmp_path / "semantic.yaml").write_text(yaml.safe_dump(content))
        options = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.EFFICIENTNET.PRETRAINED", ""]
        cfg = load_config(str(tmp_path / "semantic.yaml"), options)
        model = Trainer.build_model(cfg).eval()
        with torch.no_grad():
            (output,) = model([{"image": torch.zeros(3, 64, 96)}])
        assert output["sem_seg"].shape == (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 64, 96)


def test_more_classes_than_bytes(root, entries, tmp_path):
    """255 is then a class, and void another label: it is trained, and it is evaluated."""
    for entry in entries:
        with open(entry["panoptic_json"]) as f:
            content = json.load(f)
        first = content["categories"]
        more = [
            {"id": 1000 + i, "name": f"class {i}", "isthing": 0} for i in range(264 - len(first))
        ]
        content["categories"] = more[:255] + first + more[255:]
        entry["panoptic_json"] = str(tmp_path / f"{entry['name']}.json")
        (tmp_path / f"{entry['name']}.json").write_text(json.dumps(content))
    path = config(root, tmp_path, entries)
    options = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.DEVICE", "cpu"]
    options += ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]
    cfg = load_config(path, options)
    head = cfg.MODEL.SEM_SEG_HEAD
    assert (head.NUM_CLASSES, head.IGNORE_VALUE) == (264, 65535)
    batch = next(iter(Trainer.build_train_loader(cfg)))
    labels = torch.cat([sample["sem_seg"].flatten() for sample in batch]).unique()
    assert 255 in labels and 65535 in labels
    model = Trainer.build_model(cfg).train()
    losses = model(batch)
    assert all(loss.isfinite() for loss in losses.values())
    evaluator = SemanticEvaluator("test_mine_val", distributed=False)
    truth = GroundTruth("test_mine_val")
    for name in truth.records:
        target = torch.from_numpy(truth.semantic_map(name))
        target[target == 65535] = 0
        logits = torch.nn.functional.one_hot(target, 264).permute(2, 0, 1)
        evaluator.process([{"file_name": name}], [{"sem_seg": logits}])
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == pytest.approx(100)
