"""Benchmarks of evaluation, images and data loading, whose candidates must do the same work."""

import re

import numpy as np
import pytest
import torch
from commands import python

from eseg_d2.apps.benchmarks import loader_benchmark
from eseg_d2.apps.benchmarks.image_benchmark import benchmark_images, format_images, image_steps
from eseg_d2.apps.benchmarks.loader_benchmark import benchmark_loader
from eseg_d2.apps.benchmarks.model_benchmark import build_predictor
from eseg_d2.apps.benchmarks.panoptic_quality_benchmark import benchmark_panoptic_quality


def test_panoptic_quality_agrees_with_cityscapesscripts():
    result = benchmark_panoptic_quality(images=2, size=(60, 90), segments=8, repeats=1)
    assert result["difference"] < 1e-9
    medians = [result[name]["median"] for name in ("cityscapesscripts", "ours")]
    assert result["speedup"] == pytest.approx(medians[0] / medians[1])


@torch.no_grad()
def test_both_ways_around_the_network_give_the_same(root, tmp_path):
    photo, size = (70, 130), (64, 96)
    predictor = build_predictor(str(root / "configs/cityscapes/eseg_lite_s.yaml"), size, "cpu")
    steps = image_steps(predictor, tmp_path, photo, size)
    for ours, theirs in (steps["reading (jpg)"], steps["reading (png)"]):
        np.testing.assert_array_equal(ours(), theirs())
    ours, theirs = (call().astype(int) for call in steps["resizing"])
    assert ours.shape == (*size, 3) and np.abs(ours - theirs).max() <= 1
    ours, theirs = (call() for call in steps["normalising"])
    torch.testing.assert_close(ours.tensor, theirs)
    ours, theirs = (call() for call in steps["labelling"])
    assert ours[0].shape == theirs.shape == photo
    assert (ours[0] == theirs).float().mean() > 0.99


def test_steps_around_a_network_of_torchvision_are_refused():
    with pytest.raises(ValueError, match="lraspp_mobilenet_v3_large is a peer's model; expected"):
        benchmark_images("torchvision:lraspp_mobilenet_v3_large", (64, 64), (32, 32), repeats=1)


def test_steps_around_the_network_are_printed_with_their_ratio(root):
    config = str(root / "configs/cityscapes/eseg_lite_s.yaml")
    result = benchmark_images(config, (64, 64), (32, 32), repeats=1)
    result["resizing"]["ours"]["median"] = 0.002
    result["resizing"]["detectron2"]["median"] = 0.005
    assert "| resizing | 2.0 | 5.0 | 2.5x |" in format_images(result)


@pytest.fixture
def panoptic(root, scenes):
    return str(root / "configs/scenes/rsp_panoptic_R18_cityscapes.yaml")


def test_loader_is_compared_with_bitmasks_and_polygons(panoptic):
    result = benchmark_loader(panoptic, images=3, repeats=1)
    assert result["images"] == 3
    assert list(result["seconds"]) == ["ours", "Detectron2, bitmasks", "Detectron2, polygons"]
    assert set(result["ratios"]) == {"Detectron2, bitmasks", "Detectron2, polygons"}
    theirs = result["seconds"]["Detectron2, polygons"]["median"]
    ratio = theirs / result["seconds"]["ours"]["median"]
    assert result["ratios"]["Detectron2, polygons"] == pytest.approx(ratio)


def test_loader_is_not_compared_on_images_without_things(panoptic, monkeypatch):
    stuff = [{"file_name": "a.png", "segments_info": [{"isthing": False}]}]
    monkeypatch.setattr(loader_benchmark, "dataset_dicts", lambda name: stuff)
    with pytest.raises(ValueError, match="no image of scenes_cityscapes_panoptic_train has things"):
        benchmark_loader(panoptic, images=3, repeats=1)


def test_command_prints_the_difference_and_reports_missing_data(root, scenes):
    quality = ["panoptic-quality", "--images", "2", "--size", "40x60", "--repeats", "1"]
    done = python("tools/benchmark.py", *quality, cwd=root)
    difference = re.search(r"x; the PQ differs by (\S+) points", done.stdout)
    assert done.returncode == 0 and float(difference[1]) < 1e-9
    missing = ["loader", "--config-file", "configs/rsp_panoptic_R50.yaml"]
    done = python("tools/benchmark.py", *missing, cwd=root)
    assert done.returncode == 1 and "is not there" in done.stderr
