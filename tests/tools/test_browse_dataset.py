"""The command line for looking at a data set."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
CONFIG = "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"


def browse(*arguments, datasets):
    environment = {**os.environ, "DETECTRON2_DATASETS": str(datasets)}
    command = [sys.executable, "tools/browse_dataset.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_page_and_a_contact_sheet(scenes, tmp_path):
    page = tmp_path / "samples.html"
    arguments = ["--config-file", CONFIG, "--dataset", "scenes_cityscapes_panoptic_val"]
    done = browse(*arguments, "--count", 2, "--no-augmentation", "--output", page, datasets=scenes)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "Ground truth: scenes_cityscapes_panoptic_val" in text
    assert text.count("data:image/jpeg;base64,") == 2 * 4
    sheet = Image.open(tmp_path / "samples.png")
    assert sheet.width == 1600 and sheet.height > 300
    assert str(page) in done.stdout and str(tmp_path / "samples.png") in done.stdout


def fail(root, monkeypatch, *arguments):
    """The exit's code, which is the message if there is one, of the tool in this process."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["browse_dataset.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(root / "tools/browse_dataset.py"), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "no.yaml"], "browse_dataset.py: no config file 'no.yaml'"),
        (["--config-file", CONFIG, "--dataset", "x"], "browse_dataset.py: data set 'x' is not reg"),
        (
            ["--config-file", CONFIG, "--dataset", "coco_2017_val_panoptic"],
            "browse_dataset.py: data set 'coco_2017_val_panoptic' is not there",
        ),
    ],
)
def test_what_is_not_there_is_a_short_error(
    arguments, message, root, scenes, monkeypatch, tmp_path
):
    page = tmp_path / "a.html"
    assert fail(root, monkeypatch, *arguments, "--output", str(page)).startswith(message)
    assert not page.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "a.png"], "ends in .html"),
        (["--output", "a.html", "--count", "0"], "1 or more"),
        (["--output", "a.html", "--seed", "-1"], "0 or more"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, root, monkeypatch, capsys):
    assert fail(root, monkeypatch, "--config-file", CONFIG, *arguments) == 2
    assert message in capsys.readouterr().err
