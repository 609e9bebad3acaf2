"""Data sets in the COCO panoptic format: ours, Detectron2's and the user's own."""

import copy
import functools
import json
import operator
import os
import re

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import evaluate_perfect
from PIL import Image

import eseg_d2  # noqa: F401, registers
from eseg_d2.data.datasets.builtin import require_datasets
from eseg_d2.data.datasets.panoptic_format import (
    dataset_dicts,
    image_path,
    is_panoptic,
    metadata_from_categories,
    register_own,
    register_panoptic,
)
from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.data.panoptic_png import read_panoptic_png
from eseg_d2.engine import Trainer, load_config
from eseg_d2.evaluation import PanopticQualityEvaluator
from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.evaluation.semantic import SemanticEvaluator
from eseg_d2.structures.label_space import LabelSpace

CATEGORIES = [
    {"id": 12, "name": "tree", "isthing": 0, "color": [0, 255, 0]},
    {"id": 3, "name": "cat", "isthing": 1, "color": [255, 0, 0]},
]


@pytest.fixture(autouse=True)
def forgotten():
    """Remove what a test registers under names that begin with "test_"."""
    yield
    for catalog in DatasetCatalog, MetadataCatalog:
        for name in [name for name in catalog.list() if name.startswith("test_")]:
            catalog.remove(name)


@pytest.fixture
def tree(tmp_path):
    """Return the folder of a data set with one image, and the content of its json."""
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


def own_entry(name, folder):
    """Return the entry of DATASETS.PANOPTIC for the data set of :func:`tree`."""
    return {
        "name": name,
        "images": str(folder / "images"),
        "panoptic_png": str(folder / "panoptic"),
        "panoptic_json": str(folder / "panoptic.json"),
    }


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
    return DatasetCatalog.get("test_tree")


def test_records_have_contiguous_ids(tree):
    folder, content = tree
    (record,) = load(folder, content)
    assert record["file_name"] == str(folder / "images" / "a.jpg")
    assert (record["height"], record["width"]) == (4, 6)
    first, second = record["segments_info"]
    assert (first["category_id"], first["isthing"], first["iscrowd"]) == (1, True, 0)
    assert (second["category_id"], second["isthing"], second["iscrowd"]) == (0, False, 0)
    assert np.unique(read_panoptic_png(record["pan_seg_file_name"])).tolist() == [9, 256]


def test_registering_again_replaces_everything(tree):
    """In a notebook, a cell may be run again after the categories have changed."""
    folder, content = tree

    def register(categories):
        (folder / "panoptic.json").write_text(json.dumps({**content, "categories": categories}))
        register_own([own_entry("test_again", folder)])
        assert len(DatasetCatalog.get("test_again")) == 1
        labels = GroundTruth("test_again").semantic_map(str(folder / "images" / "a.jpg"))
        return MetadataCatalog.get("test_again"), np.unique(labels).tolist()

    assert register(CATEGORIES)[0].thing_colors
    categories = [
        {"id": id_, "name": name, "isthing": int(id_ == 3)}
        for id_, name in ((12, "shrub"), (3, "dog"), (40, "sky"))
    ]
    metadata, labels = register(categories)
    assert metadata.stuff_classes == ["shrub", "dog", "sky"] and labels == [0, 1]
    assert "thing_colors" not in metadata.as_dict()
    assert register(categories[::-1])[1] == [1, 2]


def test_errors_name_the_file_and_the_id(tree):
    folder, content = tree
    for wrong, message in (
        ("{", "panoptic.json is not valid json"),
        ({"images": []}, "lacks 'annotations'"),
        ({**content, "annotations": []}, "annotates no image"),
        ({**content, "images": []}, "a.png belongs to image 1, which is not"),
    ):
        with pytest.raises(ValueError, match=message):
            load(folder, wrong)
    name = content["images"][0].pop("file_name")
    with pytest.raises(ValueError, match="panoptic.json, image 1: .* lacks file_name"):
        load(folder, content)
    content["images"][0]["file_name"] = f"{name}\0"
    with pytest.raises(
        ValueError, match=r"panoptic.json, image 'a.jpg\\x00': .*the name of a file"
    ):
        load(folder, content)
    content["images"][0]["file_name"] = name
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


def test_error_for_missing_coco_is_short_and_says_what_to_do():
    with pytest.raises(FileNotFoundError) as error:
        require_datasets(["coco_2017_val_panoptic"])
    message = str(error.value)
    assert "DETECTRON2_DATASETS" in message and "panoptic_val2017.json" in message
    assert "datasets/README.md" in message
    assert len(message.splitlines()) < 8


@pytest.fixture
def as_published(scenes, tree):
    """Put scenes where Detectron2 looks for Cityscapes, and one image where it looks for COCO."""
    (scenes / "cityscapes").symlink_to(scenes / "street_scenes" / "cityscapes")
    folder, content = tree
    first, second = content["annotations"][0]["segments_info"]
    first["category_id"], second["category_id"] = 17, 184  # cat and tree
    (folder / "annotations").mkdir()
    (folder / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    (folder / "val2017").symlink_to(folder / "images")
    (folder / "panoptic_val2017").symlink_to(folder / "panoptic")
    (scenes / "coco").symlink_to(folder)
    yield scenes
    (scenes / "cityscapes").unlink()
    (scenes / "coco").unlink()


DETECTRON2_NAMES = ["cityscapes_fine_panoptic_val", "coco_2017_val_panoptic"]


@pytest.mark.parametrize("name", DETECTRON2_NAMES)
def test_detectron2_dicts_give_the_same_targets_as_ours(as_published, name):
    """A script built from Detectron2's parts therefore trains on the same targets."""
    cfg = get_cfg()
    eseg_d2.add_eseg_config(cfg)
    cfg.MODEL.MASK_ON = True
    mapper = PanopticMapper.for_validation(cfg, name)
    theirs = {record["file_name"]: mapper(record) for record in DatasetCatalog.get(name)}
    ours = dataset_dicts(name)
    assert len(ours) == len(theirs) > 0
    for record in ours:
        assert record["height"] > 0 and record["width"] > 0
        mapped, other = mapper(record), theirs[record["file_name"]]
        assert mapped["image_id"] == other["image_id"]
        for key in "image", "sem_seg":
            assert torch.equal(mapped[key], other[key])
        assert len(mapped["instances"]) == len(other["instances"])
        assert torch.equal(mapped["instances"].gt_classes, other["instances"].gt_classes)
        masks = mapped["instances"].gt_masks.tensor, other["instances"].gt_masks.tensor
        assert torch.equal(*masks)
    assert sum(len(other["instances"]) for other in theirs.values()) > 0


@pytest.mark.parametrize("name", DETECTRON2_NAMES)
def test_data_sets_of_detectron2_can_be_evaluated(as_published, name):
    evaluator = PanopticQualityEvaluator(name, distributed=False)
    assert evaluate_perfect(evaluator, GroundTruth(name))["panoptic_seg"]["PQ"] == 100


def test_dicts_from_other_loaders_are_completed(tree):
    """A function that the user registered may leave out keys that the evaluators read."""
    folder, content = tree
    (record,) = load(folder, content)
    plain = [{k: s[k] for k in ("id", "category_id")} for s in record["segments_info"]]
    DatasetCatalog.register("test_others", lambda: [{**record, "segments_info": plain}])
    MetadataCatalog.get("test_others").set(
        panoptic_json="somewhere.json", **metadata_from_categories(CATEGORIES)
    )
    assert is_panoptic("test_others")
    (completed,) = dataset_dicts("test_others")
    keys = ("id", "category_id", "isthing", "iscrowd")
    expected = [{k: s[k] for k in keys} for s in record["segments_info"]]
    assert completed == {**record, "segments_info": expected}


def test_entries_of_detectron2_cannot_be_replaced(tree):
    folder, _ = tree
    before = DatasetCatalog["coco_2017_val_panoptic"], MetadataCatalog["coco_2017_val_panoptic"]
    paths = dict.fromkeys(("image_root", "panoptic_root", "panoptic_json"), str(folder))
    with pytest.raises(ValueError, match="'coco_2017_val_panoptic' already.*another name"):
        register_panoptic(
            "coco_2017_val_panoptic", **paths, metadata=metadata_from_categories(CATEGORIES)
        )
    after = DatasetCatalog["coco_2017_val_panoptic"], MetadataCatalog["coco_2017_val_panoptic"]
    assert all(a is b for a, b in zip(before, after, strict=True))


def test_errors_for_unknown_and_missing_data_sets_help():
    with pytest.raises(ValueError, match="cityscapes_fine_panoptic_train"):
        require_datasets(["cityscapes_fine_panoptc_train"])
    with pytest.raises(FileNotFoundError, match="python datasets/prepare_cityscapes.py"):
        require_datasets(["cityscapes_fine_panoptic_train"])


@pytest.mark.parametrize("path", ["../a.jpg", "/etc/passwd", "x/../../a.jpg", "..", "x/../..//a"])
@pytest.mark.parametrize("entry", ["images", "annotations"])
def test_paths_that_lead_out_of_the_folders_are_refused(tree, entry, path):
    """They would be dangerous, as predictions are written under the names of the pngs."""
    folder, content = tree
    content[entry][0]["file_name"] = path
    with pytest.raises(ValueError, match=f"panoptic.json.*: the path {path} is outside of "):
        load(folder, content)


def test_paths_that_stay_inside_the_folders_are_accepted(tree):
    folder, content = tree
    (folder / "elsewhere").symlink_to(folder / "images")
    (folder / "images" / "link").symlink_to(folder / "images")
    for name in "link/a.jpg", "x/../a.jpg", "./a.jpg", "a..jpg", "..a/b.jpg":
        content["images"][0]["file_name"] = name
        (record,) = load(folder, content)
        assert record["file_name"] == str(folder / "images") + "/" + name


@pytest.mark.parametrize(
    ("image_id", "error"),
    [("../../x_1", ValueError), ("/etc/x_1", ValueError), (3, AttributeError)],
)
def test_cityscapes_ids_that_lead_out_of_the_folder_are_refused(image_id, error):
    metadata = MetadataCatalog.get("scenes_cityscapes_panoptic_val")
    with pytest.raises(error):
        image_path(metadata, {}, {"image_id": image_id})


VALUES = st.one_of(
    *(st.none(), st.booleans(), st.floats(), st.text(max_size=3), st.just([]), st.just({})),
    *(st.integers(-3, 3), st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**400, 0x1000000])),
    *(st.just([[1]]), st.just("../x"), st.just("/x"), st.just([{"id": 1}]), st.just({"id": [1]})),
)


def places(value, path=()):
    """Yield the path of every value in the content of a json."""
    yield path
    children = {dict: dict.items, list: enumerate}.get(type(value), lambda value: ())(value)
    for key, child in children:
        yield from places(child, (*path, key))


def change(content, path, value):
    """Replace the value at a path, or remove it if the new one is ``...``."""
    parent = functools.reduce(operator.getitem, path[:-1], content)
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_broken_jsons_are_named_or_harmless(tree, data):
    """A random change either raises an error that names the file, or leaves valid records."""
    folder, content = tree
    content = copy.deepcopy(content)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(content))[1:]))
        change(content, path, copy.deepcopy(data.draw(VALUES | st.just(...))))
    try:
        (record,) = load(folder, content)
    except ValueError as e:
        assert "panoptic.json" in str(e)
    else:
        for key, root in ("file_name", "images"), ("pan_seg_file_name", "panoptic"):
            assert os.path.normpath(record[key]).startswith(str(folder / root))
        assert record["height"] > 0 and record["width"] > 0
        assert all(0 < s["id"] <= 0xFFFFFF for s in record["segments_info"])
    try:
        register_own([own_entry("test_tree", folder)])
        LabelSpace.from_metadata(MetadataCatalog.get("test_tree"))
    except ValueError as e:
        assert "panoptic.json" in str(e)


@pytest.fixture
def entries(scenes):
    """Return entries of DATASETS.PANOPTIC that describe the COCO scenes like a user's data."""
    root = scenes / "street_scenes" / "coco"
    return [
        {
            "name": f"test_mine_{split}",
            "images": str(root / f"{split}2017"),
            "panoptic_png": str(root / f"panoptic_{split}2017"),
            "panoptic_json": str(root / "annotations" / f"panoptic_{split}2017.json"),
        }
        for split in ("train", "val")
    ]


def change_categories(entry, folder, change):
    """Let an entry have a json of its own, whose categories are changed."""
    with open(entry["panoptic_json"]) as f:
        content = json.load(f)
    content["categories"] = change(content["categories"])
    entry["panoptic_json"] = str(folder / f"{entry['name']}.json")
    (folder / f"{entry['name']}.json").write_text(json.dumps(content))


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


def test_config_alone_registers_the_users_data(root, entries, tmp_path):
    cfg = load_config(config(root, tmp_path, entries), [])
    with open(entries[0]["panoptic_json"]) as f:
        categories = json.load(f)["categories"]
    assert len(categories) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    assert sum(c["isthing"] for c in categories) == cfg.MODEL.ROI_HEADS.NUM_CLASSES
    assert len(DatasetCatalog.get("test_mine_train")) == 12
    assert MetadataCatalog.get("test_mine_val").thing_classes == [c["name"] for c in categories]
    again = tmp_path / "config.yaml"  # the config that a run saves gives the same model
    again.write_text(cfg.dump())
    assert yaml.safe_load(load_config(str(again), []).dump()) == yaml.safe_load(cfg.dump())


def test_data_sets_with_different_classes_are_refused(root, entries, tmp_path):
    change_categories(entries[1], tmp_path, lambda categories: categories[1:])
    with pytest.raises(ValueError, match="same classes(.|\n)*test_mine_val"):
        load_config(config(root, tmp_path, entries), [])


def test_errors_in_entries_name_the_data_set(entries, tmp_path):
    entry = entries[0]
    with pytest.raises(ValueError, match="name, images, panoptic_png, panoptic_json"):
        register_own([{"name": "x"}])
    with pytest.raises(ValueError, match="its images is 5, expected a string"):
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
        (json.dumps({"categories": [CATEGORIES[1]] * 2}), r"bad.json share an id: \[3, 3\]"),
        ("[" * 200_000, "bad.json is not valid json"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            register_own([{**entry, "panoptic_json": str(path)}])


@pytest.mark.parametrize("kind", ["PanopticRCNN", "GeneralizedRCNN", "RetinaNet"])
def test_models_of_things_are_refused_on_data_without_things(root, entries, tmp_path, kind):
    for entry in entries:
        change_categories(entry, tmp_path, lambda found: [{**c, "isthing": 0} for c in found])
    path = config(root, tmp_path, entries)
    with pytest.raises(ValueError, match="'test_mine_train' has no things") as error:
        load_config(path, ["MODEL.META_ARCHITECTURE", kind])
    bases = re.findall(r"configs/[\w-]+.yaml", str(error.value))
    assert len(bases) == 2
    for base in bases:
        content = yaml.safe_load((tmp_path / "mine.yaml").read_text())
        content["_BASE_"] = str(root / base)
        (tmp_path / "semantic.yaml").write_text(yaml.safe_dump(content))
        options = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""]
        cfg = load_config(str(tmp_path / "semantic.yaml"), options)
        model = Trainer.build_model(cfg).eval()
        with torch.no_grad():
            (output,) = model([{"image": torch.zeros(3, 64, 96)}])
        assert output["sem_seg"].shape == (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 64, 96)


def test_more_than_255_classes_are_trained_and_evaluated(root, entries, tmp_path):
    """255 is then a class like any other, and the label of void is 65535."""
    more = [{"id": 1000 + i, "name": f"class {i}", "isthing": 0} for i in range(264)]
    for entry in entries:
        change_categories(entry, tmp_path, lambda found: [*more[len(found) :], *found])
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
