"""The trained models of weights/: their cards are right, and faulty files are reported."""

import json
import re
import shutil

import pytest
from commands import python

from eseg_d2 import Predictor
from eseg_d2.apps.cards import example_metrics
from eseg_d2.config import pretrained

NAMES = pretrained.pretrained_names()
MOST_BYTES = 15e6


@pytest.mark.parametrize("name", NAMES)
def test_models_reach_the_scores_on_their_cards(root, name):
    card = pretrained.pretrained_card(name)
    predictor = Predictor.pretrained(name, device="cpu")
    found = example_metrics(predictor, root / "demo" / "images")
    # processors differ in rounding
    assert found == pytest.approx(card["examples"], abs=0.3)
    assert found["mIoU"] > 20  # random weights of the same models score below 5


@pytest.mark.parametrize("name", NAMES)
def test_cards_are_complete(root, name):
    card = pretrained.pretrained_card(name)
    assert card["name"] == name and (root / card["config"]).is_file()
    assert card["bytes"] == (root / "weights" / f"{name}.safetensors").stat().st_size < MOST_BYTES
    assert re.fullmatch("[0-9a-f]{40}", card["commit"])
    for key in "use", "data", "recipe", "environment", "metrics", "examples":
        assert card[key], key
    assert f"`{name}`" in (root / "weights" / "README.md").read_text()


def test_there_is_a_card_for_each_of_at_most_three_models(root):
    assert len(list((root / "weights").glob("*.safetensors"))) == len(NAMES) <= 3


def test_unknown_model_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match="no pretrained model 'resnet'; there are .*" + NAMES[0]):
        Predictor.pretrained("resnet")


def test_pretrained_takes_options_and_overrides(root):
    predictor = Predictor.pretrained(NAMES[0], overrides=["INPUT.MIN_SIZE_TEST", "96"], fuse=False)
    assert predictor.cfg.INPUT.MIN_SIZE_TEST == 96
    assert predictor(root / "demo" / "images" / "street_1.png").size == (192, 384)


@pytest.fixture
def copy(monkeypatch, root, tmp_path):
    """Replace weights/ by a folder with a copy of one model, and return that folder."""
    for path in (root / "weights").glob(f"{NAMES[0]}.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    return tmp_path


def test_truncated_and_missing_weights_are_refused(copy):
    path = copy / f"{NAMES[0]}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileNotFoundError, match="incomplete or changed"):
        Predictor.pretrained(NAMES[0])
    path.unlink()
    with pytest.raises(FileNotFoundError, match="clone or install"):
        Predictor.pretrained(NAMES[0])


def test_quick_start_works_without_data_sets(root, tmp_path):
    words = ["--model", NAMES[0], "--input", "demo/images", "--output", tmp_path / "pictures"]
    done = python(
        "demo/demo.py", *words, "--save", "overlay,json", cwd=root, DETECTRON2_DATASETS=tmp_path
    )
    assert done.returncode == 0, done.stderr
    pictures = sorted(path.name for path in (tmp_path / "pictures").glob("*_overlay.jpg"))
    assert pictures == [f"street_{n}_overlay.jpg" for n in (1, 2, 3)]
    segments = json.loads((tmp_path / "pictures" / "street_1_segments.json").read_text())
    assert "road" in {s["class_name"] for s in segments["segments"]}


@pytest.mark.parametrize("tool", ["demo/demo.py", "demo/app.py"])
def test_demos_need_a_known_model_or_a_config_and_not_both(root, tool, tmp_path):
    for words in [(), ("--model", NAMES[0], "--config-file", "a.yaml")]:
        done = python(tool, *words, "--input" if "demo.py" in tool else "--host", "x", cwd=root)
        assert done.returncode == 2 and "--model" in done.stderr
    words = ("--input", "demo/images", "--output", tmp_path) if "demo.py" in tool else ()
    done = python(tool, "--model", "resnet", *words, "--opts", cwd=root)
    assert done.returncode == 1 and "no pretrained model 'resnet'" in done.stderr
    assert "Traceback" not in done.stderr
