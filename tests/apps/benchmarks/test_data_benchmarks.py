"""Benchmarks of evaluation and data loading, whose candidates must do the same work."""

import re

import pytest
from commands import python

from eseg_d2.apps.benchmarks.loader_benchmark import benchmark_loader
from eseg_d2.apps.benchmarks.panoptic_quality_benchmark import benchmark_panoptic_quality


def test_panoptic_quality_agrees_with_cityscapesscripts():
    result = benchmark_panoptic_quality(images=2, size=(60, 90), segments=8, repeats=1)
    assert result["difference"] < 1e-9
    medians = [result[name]["median"] for name in ("cityscapesscripts", "ours")]
    assert result["speedup"] == pytest.approx(medians[0] / medians[1])


def test_loader_is_compared_with_bitmasks_and_polygons(root, scenes):
    path = str(root / "configs/scenes/rsp_panoptic_R18_cityscapes.yaml")
    result = benchmark_loader(path, images=3, repeats=1)
    assert list(result["seconds"]) == ["ours", "Detectron2, bitmasks", "Detectron2, polygons"]
    assert set(result["ratios"]) == {"Detectron2, bitmasks", "Detectron2, polygons"}
    assert all(ratio > 0 for ratio in result["ratios"].values())


def test_command_prints_the_difference_and_reports_missing_data(root, scenes):
    quality = ["panoptic-quality", "--images", "2", "--size", "40x60", "--repeats", "1"]
    done = python("tools/benchmark.py", *quality, cwd=root)
    difference = re.search(r"x; the PQ differs by (\S+) points", done.stdout)
    assert done.returncode == 0 and float(difference[1]) < 1e-9
    missing = ["loader", "--config-file", "configs/rsp_panoptic_R50.yaml"]
    done = python("tools/benchmark.py", *missing, cwd=root)
    assert done.returncode == 1 and "is not there" in done.stderr
