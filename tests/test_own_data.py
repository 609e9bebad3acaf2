"""From a user's own images and labels to a trained and evaluated model, as in docs/data.md."""

import json
import re
import shlex
import string

import numpy as np
import pytest
import yaml
from commands import python
from oracle import evaluate_perfect
from panoptic_files import save
from PIL import Image
from runs import SHORT

from eseg_d2.apps.scenes.labels import CATEGORIES

SEED = 4
IGNORED = 254


def own_ids():
    """Map the scenes' classes to other ids: shuffled, with gaps, including 0 and 255."""
    ids = np.random.default_rng(SEED).permutation(np.arange(len(CATEGORIES)) * 20)
    ids[ids == 20] = 255
    return dict(zip([c.id for c in CATEGORIES], ids.tolist(), strict=True))


def write_own(scenes, folder):
    """Write the scenes as images, label pngs and instance pngs, and return the categories."""
    ids = own_ids()
    things = [c.id for c in CATEGORIES if c.hasInstances]
    categories = [
        {"id": ids[c.id], "name": c.name, "isthing": c.hasInstances} for c in reversed(CATEGORIES)
    ]
    folder.mkdir()
    (folder / "categories.yaml").write_text(yaml.safe_dump(categories))
    table = np.full(256, IGNORED, np.uint8)
    for label, number in ids.items():
        table[label] = number
    for split, name, image, labels, numbers in scene_files(scenes):
        instances = np.where((numbers >= 1000) & np.isin(labels, things), numbers % 1000 + 1, 0)
        save(folder / split / "images" / f"{name}.png", image)
        save(folder / split / "labels" / f"{name}.png", table[labels])
        save(folder / split / "instances" / f"{name}.png", instances.astype(np.uint16))
    return categories


def scene_files(scenes):
    """Yield the split, name, pixels, label ids and instance ids of each scene."""
    root = scenes / "street_scenes" / "cityscapes"
    for source in sorted((root / "gtFine").rglob("*_instanceIds.png")):
        split, town = source.parts[-3:-1]
        name = source.name.removesuffix("_gtFine_instanceIds.png")
        numbers = np.asarray(Image.open(source)).astype(np.int64)
        image = Image.open(root / "leftImg8bit" / split / town / f"{name}_leftImg8bit.png")
        labels = np.where(numbers < 1000, numbers, numbers // 1000)
        yield split, f"{town}/{name}", np.asarray(image), labels, numbers


@pytest.fixture(scope="module")
def own(root, scenes, tmp_path_factory):
    """Convert a data set; return its folder, categories and a config of the printed entries."""
    folder = tmp_path_factory.mktemp("own") / "data"
    categories = write_own(scenes, folder)
    entries = []
    for split in "train", "val":
        made = python(
            "datasets/to_panoptic.py", "label-maps",
            "--images", folder / split / "images", "--labels", folder / split / "labels",
            "--instances", folder / split / "instances",
            "--categories", folder / "categories.yaml",
            "--output", folder / split / "made", "--ignore", IGNORED,
            "--name", f"test_own_{split}", "--workers", 2, cwd=root,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr[-3000:]
        printed = yaml.safe_load(made.stdout.split("For your configuration:")[1])
        entries += printed["DATASETS"]["PANOPTIC"]
    config = folder / "mine.yaml"
    base = root / "configs" / "scenes" / "Base-Scenes-Panoptic.yaml"
    datasets = {"PANOPTIC": entries, "TRAIN": ["test_own_train"], "TEST": ["test_own_val"]}
    config.write_text(yaml.safe_dump({"_BASE_": str(base), "DATASETS": datasets}))
    return folder, categories, config


def test_model_is_trained_and_evaluated_on_the_converted_data(root, own, tmp_path):
    _, categories, config = own
    out = tmp_path / "run"
    command = "train_net.py", "--config-file", config
    trained = python(*command, *SHORT, "SOLVER.MAX_ITER", 2, "OUTPUT_DIR", out, cwd=root)
    assert trained.returncode == 0, trained.stderr[-3000:]
    settings = yaml.safe_load((out / "config.yaml").read_text())["MODEL"]
    assert settings["SEM_SEG_HEAD"]["NUM_CLASSES"] == len(categories)
    assert settings["ROI_HEADS"]["NUM_CLASSES"] == sum(c["isthing"] for c in categories)
    results = json.loads((out / "results.json").read_text())
    assert {"PQ", "PQ_th", "PQ_st"} <= set(results["panoptic_seg"])
    per_class = {key for key in results["sem_seg"] if key.startswith("IoU-")}
    assert "mIoU" in results["sem_seg"]
    assert per_class == {f"IoU-{c['name']}" for c in categories}
    quality = json.loads((out / "inference" / "panoptic_quality.json").read_text())
    assert all(c["name"] in json.dumps(quality) for c in categories)


@pytest.fixture
def registered(own):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from eseg_d2.data.datasets.panoptic_format import register_own

    entries = yaml.safe_load(own[2].read_text())["DATASETS"]["PANOPTIC"]
    register_own(entries)
    yield [entry["name"] for entry in entries]
    for entry in entries:
        DatasetCatalog.remove(entry["name"])
        MetadataCatalog.remove(entry["name"])


def test_perfect_predictions_score_100(registered):
    from eseg_d2.evaluation.ground_truth import GroundTruth
    from eseg_d2.evaluation.panoptic_quality import PanopticQualityEvaluator
    from eseg_d2.evaluation.semantic import SemanticEvaluator

    for name in registered:
        truth = GroundTruth(name)
        panoptic = evaluate_perfect(PanopticQualityEvaluator(name), truth)
        semantic = evaluate_perfect(SemanticEvaluator(name), truth)
        assert panoptic["panoptic_seg"]["PQ"] == pytest.approx(100)
        assert semantic["sem_seg"]["mIoU"] == pytest.approx(100)


def test_converted_data_has_the_same_segments_as_the_scenes(registered):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    def contents(name):
        names = MetadataCatalog.get(name).thing_classes
        return sorted(
            sorted((names[s["category_id"]], s["area"], s["iscrowd"]) for s in r["segments_info"])
            for r in DatasetCatalog.get(name)
        )

    for split in "train", "val":
        assert contents(f"test_own_{split}") == contents(f"scenes_cityscapes_panoptic_{split}")


SEMANTIC = ("SOLVER.MAX_ITER", "3", "MODEL.WEIGHTS", "", "INPUT.MIN_SIZE_TRAIN", "(48, 64)")


@pytest.fixture(scope="module")
def semantic_checkout(root, scenes, tmp_path_factory):
    """Make a checkout with a user's photographs and label pngs where the page expects them."""
    folder = tmp_path_factory.mktemp("semantic")
    for name in "configs", "datasets", "tools", "train_net.py":
        (folder / name).symlink_to(root / name)
    ids = {c.name: c.id for c in CATEGORIES}
    table = np.full(256, 255, np.uint8)
    table[[ids["road"], ids["sky"], ids["vegetation"]]] = 0, 1, 2
    names = {"train": iter(string.ascii_lowercase), "val": iter(string.ascii_lowercase)}
    for split, _, image, labels, _ in scene_files(scenes):
        name = next(names[split])
        save(folder / "data" / split / "images" / f"{name}.jpg", image)
        save(folder / "data" / split / "labels" / f"{name}.png", table[labels])
    return folder


def test_semantic_section_of_the_page_runs_as_printed(root, semantic_checkout):
    text = (root / "docs/data.md").read_text()
    section = re.search(r"^## Semantic data sets.*?(?=^## )", text, re.M | re.S).group()
    categories, config = re.findall(r"```yaml\n(.*?)```", section, re.S)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    (semantic_checkout / "data" / "categories.yaml").write_text(categories)
    (semantic_checkout / "mine.yaml").write_text(config)
    commands = re.findall(r"^    python (.*)$", section.replace("\\\n", " "), re.M)
    assert len(commands) == 5
    for command in commands:
        words = shlex.split(command)
        if words[0] == "train_net.py":
            at = words.index("--config-file") + 2 + ("--eval-only" in words)
            words[at:at] = (*SHORT, *SEMANTIC)
        done = python(*words, cwd=semantic_checkout)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
    results = json.loads((semantic_checkout / "output" / "mine" / "results.json").read_text())
    classes = {key for key in results["sem_seg"] if key.startswith("IoU-")}
    assert classes == {"IoU-road", "IoU-sky", "IoU-tree"}
    assert 0 <= results["sem_seg"]["mIoU"] <= 100
    predicted = python("-c", code, cwd=semantic_checkout)
    assert predicted.returncode == 0, predicted.stderr[-3000:]
    assert predicted.stdout.startswith("(64, 128) [") and "'" in predicted.stdout
