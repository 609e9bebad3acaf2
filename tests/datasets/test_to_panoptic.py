"""The command that converts a user's own annotations."""

import json
import runpy

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from panoptic_files import save

from eseg_d2.apps import convert
from eseg_d2.data.datasets.panoptic_format import register_own


@pytest.fixture(scope="module")
def main(root):
    return runpy.run_path(str(root / "datasets/to_panoptic.py"))["main"]


@pytest.fixture
def folder(tmp_path):
    """Write one image of 4x6 with grass (1), a cat (2) and void."""
    labels = np.ones((4, 6), np.uint8)
    labels[:2, :2] = 2
    labels[3] = 255
    save(tmp_path / "images" / "a.jpg", np.zeros((4, 6, 3), np.uint8))
    save(tmp_path / "labels" / "a.png", labels)
    save(tmp_path / "instances" / "a.png", (labels == 2).astype(np.uint8))
    save(tmp_path / "stuff" / "a.png", np.where(labels == 2, 255, labels))
    grass, cat = {"id": 1, "name": "grass", "isthing": 0}, {"id": 2, "name": "cat", "isthing": 1}
    (tmp_path / "categories.yaml").write_text(yaml.safe_dump([grass, cat]))
    (tmp_path / "stuff.yaml").write_text(yaml.safe_dump([grass]))
    square = [[0, 0, 2, 0, 2, 2, 0, 2]]
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 4, "width": 6}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 2, "segmentation": square}] * 2,
        "categories": [cat],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def words(kind, folder, changes, **values):
    values = {"images": folder / "images", "output": folder / "out", "workers": 1, **values}
    values |= changes
    return [kind, *(text for k, v in values.items() for text in (f"--{k}", str(v)))]


def label_maps(folder, **changes):
    values = {"instances": folder / "instances", "categories": folder / "categories.yaml"}
    return words("label-maps", folder, changes, labels=folder / "labels", **values)


def coco(folder, **changes):
    values = {"stuff": folder / "stuff", "stuff-categories": folder / "stuff.yaml"}
    return words("coco", folder, changes, instances=folder / "instances.json", **values)


@pytest.mark.parametrize("command", [label_maps, coco])
def test_printed_configuration_can_be_pasted(main, folder, capsys, command):
    assert main(command(folder, name="test_pasted")) == 0
    captured = capsys.readouterr()
    first, text = captured.out.split("For your configuration:")
    assert first.startswith(f"{folder / 'out'}: made, 1 images, 2 segments\n")
    assert ("left out: 1 objects" in first) == (command is coco)
    assert "panoptic pngs" in captured.err
    (entry,) = yaml.safe_load(text)["DATASETS"]["PANOPTIC"]
    register_own([entry])
    try:
        (record,) = DatasetCatalog.get("test_pasted")
        assert record["file_name"] == str(folder / "images" / "a.jpg")
        assert sorted(s["area"] for s in record["segments_info"]) == [4, 14]
    finally:
        DatasetCatalog.remove("test_pasted")
        MetadataCatalog.remove("test_pasted")
    assert main(command(folder)) == 0
    again = capsys.readouterr().out
    assert "already made" in again and "- name: out\n" in again


def test_ignore_takes_several_values_or_none(main, folder, capsys):
    assert main([*label_maps(folder), "--ignore", "1", "255"]) == 1
    assert "1 is ignored and is the id" in capsys.readouterr().err
    assert main([*label_maps(folder), "--ignore", "7", "255"]) == 0
    assert main([*label_maps(folder, output=folder / "none"), "--ignore"]) == 1
    error = capsys.readouterr().err
    assert "value 255" in error and "ignored: none" in error


def test_absent_classes_and_classes_with_crowds_only_are_reported(main, folder, capsys):
    save(folder / "instances" / "a.png", np.zeros((4, 6), np.uint8))
    categories = yaml.safe_load((folder / "categories.yaml").read_text())
    categories.append({"id": 9, "name": "sky", "isthing": 0})
    (folder / "categories.yaml").write_text(yaml.safe_dump(categories))
    assert main(label_maps(folder)) == 0
    out = capsys.readouterr().out
    assert "without a pixel: sky\n" in out
    assert "things of crowds alone, which teach no instance: cat\n" in out


def test_fault_is_a_short_error(main, folder, capsys):
    for arguments, message in (
        (label_maps(folder, labels=folder / "nowhere"), "there is no folder"),
        (coco(folder, instances=folder / "no.json"), "no such file"),
        (label_maps(folder, output=folder / "stuff.yaml"), "stuff.yaml"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and message in error


def test_interrupted_run_says_how_to_continue(main, folder, capsys, monkeypatch):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "convert_label_maps", interrupt)
    assert main(label_maps(folder)) == 130
    assert "the same command continues" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["voc"], ["coco", "--labels", "x"], ["label-maps"]])
def test_wrong_usage_is_reported(main, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["label-maps", "coco"])
def test_help_states_the_conversion_rules(main, capsys, kind):
    with pytest.raises(SystemExit) as stopped:
        main([kind, "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "crowd" in text and "--ignore" in text and "default: 255" in text
