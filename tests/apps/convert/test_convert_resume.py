"""An interrupted conversion is continued; a finished one is left alone."""

import json
import os
import time

import numpy as np
import pytest
from commands import started
from panoptic_files import LabelMaps, contents
from PIL import Image

from eseg_d2.apps.convert import convert_label_maps, label_maps

CATEGORIES = [{"id": 1, "name": "wall", "isthing": 0}, {"id": 2, "name": "cat", "isthing": 1}]
COUNT = 6


@pytest.fixture
def arguments(tmp_path):
    inputs = LabelMaps(tmp_path, CATEGORIES)
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        labels = rng.integers(1, 3, (8, 9))
        inputs.add(str(index), labels, labels * 3)
    return inputs.arguments


@pytest.fixture
def reads(monkeypatch):
    """Record which label PNGs are read; ``stop_at`` interrupts after so many."""

    class Reads(list):
        stop_at = None

    seen = Reads()
    read = label_maps.read_label_png

    def counting(path):
        if path.parent.name == "labels":
            if len(seen) == seen.stop_at:
                raise KeyboardInterrupt
            seen.append(path.name)
        return read(path)

    monkeypatch.setattr(label_maps, "read_label_png", counting)
    return seen


def test_interrupted_run_is_continued(arguments, reads, tmp_path):
    output = arguments["output"]
    assert convert_label_maps(**arguments | {"output": tmp_path / "whole", "workers": 2}).made
    reads.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        convert_label_maps(**arguments)
    assert not (output / "panoptic.json").exists()
    reads.stop_at = None
    found = convert_label_maps(**arguments)
    assert found.made and found.images == COUNT
    assert reads == [f"{index}.png" for index in range(COUNT)]
    assert contents(output) == contents(tmp_path / "whole")
    assert len(contents(output)) == COUNT + 1

    again = convert_label_maps(**arguments)
    assert not again.made and again.segments == found.segments
    assert len(reads) == COUNT


def test_files_that_changed_in_between_are_converted_again(arguments, reads):
    output = arguments["output"]
    reads.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        convert_label_maps(**arguments)
    label = arguments["labels"] / "1.png"
    Image.fromarray(np.full((8, 9), 255, np.uint8)).save(label)
    os.utime(label, (1, 1))
    os.remove(arguments["images"] / "0.jpg")
    for folder in "labels", "instances":
        os.remove(arguments[folder] / "0.png")
    reads.stop_at = None
    reads.clear()
    convert_label_maps(**arguments)
    # without image 0 the others have new image ids
    assert reads == ["1.png", "2.png", "3.png", "4.png", "5.png"]
    content = json.loads((output / "panoptic.json").read_text())
    assert content["annotations"][0]["segments_info"] == []
    pngs = sorted(path.name for path in (output / "panoptic").iterdir())
    assert pngs == ["1.png", "2.png", "3.png", "4.png", "5.png"]


def test_missing_png_is_made_again(arguments):
    output = arguments["output"]
    convert_label_maps(**arguments)
    before = contents(output)
    (output / "panoptic" / "3.png").unlink()
    assert convert_label_maps(**arguments).made
    assert contents(output) == before


def test_result_of_other_inputs_is_not_overwritten(arguments, tmp_path):
    output = arguments["output"]
    convert_label_maps(**arguments)
    before = contents(output)
    with pytest.raises(FileExistsError, match=r"panoptic.json was made from other files"):
        convert_label_maps(**arguments, ignore=(254,))
    os.utime(arguments["labels"] / "1.png", (1, 1))
    with pytest.raises(FileExistsError, match=r"panoptic.json was made from other files"):
        convert_label_maps(**arguments)
    assert contents(output) == before
    foreign = tmp_path / "foreign"
    (foreign / "panoptic").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="already exists"):
        convert_label_maps(**{**arguments, "output": foreign})
    (foreign / "panoptic.json").write_text("[]")
    with pytest.raises(FileExistsError):
        convert_label_maps(**{**arguments, "output": foreign})


def test_killed_run_leaves_no_incomplete_file(arguments, root, tmp_path):
    output = arguments["output"]
    images = 400
    for folder, suffix in (("images", "jpg"), ("labels", "png"), ("instances", "png")):
        first = (arguments[folder] / f"0.{suffix}").read_bytes()
        for index in range(COUNT, images):
            (arguments[folder] / f"{index}.{suffix}").write_bytes(first)
    command = ["datasets/to_panoptic.py", "label-maps"]
    for key, value in arguments.items():
        command += [f"--{key}", value]
    pngs = output / "panoptic"
    with started(*command, cwd=root, output=tmp_path) as process:
        while process.is_alive() and not (pngs.exists() and len(list(pngs.iterdir())) > 20):
            time.sleep(0.001)
    assert not (output / "panoptic.json").exists()
    for path in pngs.glob("[!.]*.png"):
        with Image.open(path) as image:
            image.load()
    assert convert_label_maps(**arguments).images == images
    whole = {**arguments, "output": tmp_path / "whole"}
    convert_label_maps(**whole)
    assert contents(output) == contents(tmp_path / "whole")
