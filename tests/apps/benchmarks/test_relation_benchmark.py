"""Benchmark of the pixel-to-region relation against its textbook form."""

import json
import shutil

import pytest
import torch
from commands import python

from eseg_d2.apps.benchmarks import relation_benchmark
from eseg_d2.apps.benchmarks.measure import peak_memory
from eseg_d2.apps.benchmarks.relation_benchmark import (
    count_relation,
    textbook_relation,
    without_position,
)
from eseg_d2.layers.relation import PixelToRegionRelation


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 1)])
def test_textbook_form_equals_the_operator(k, size):
    relation = without_position(PixelToRegionRelation(8, num_heads=2, region_size=k))
    cells = (size[0] + 1) // 2, (size[1] + 1) // 2
    shapes = (2, 8, *size), (2, 8, *cells), (2, 6, *cells)
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    expected = textbook_relation(*tensors, num_heads=2, region_size=k)
    torch.testing.assert_close(relation(*tensors), expected, rtol=0, atol=1e-12)


def test_peak_memory_counts_tensors_that_are_alive_together():
    x = torch.zeros(2**18)  # 1 MiB

    def call():
        y = x + 1
        z = y + 1
        del y
        return z + 1

    assert peak_memory(call, "cpu") == pytest.approx(2 * x.nbytes, rel=1e-3)


def test_command_writes_timings_and_memory(root, tmp_path):
    command = ["tools/benchmark.py", "relation"]
    arguments = ["--channels", "16", "--sizes", "6x9", "--region-sizes", "3", "--repeats", "2"]
    path = tmp_path / "relation.json"
    done = python(*command, *arguments, "--json", path, cwd=root)
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())
    assert [row["pass"] for row in rows] == ["forward", "forward+backward"]
    for row in rows:
        assert row["size"] == [6, 9] and row["channels"] == 16 and row["region_size"] == 3
        assert set(row["seconds"]) == {"textbook", "relation"}
        assert row["speedup"]["textbook"] == 1
        assert row["memory_ratio"] == row["peak_bytes"]["relation"] / row["peak_bytes"]["textbook"]
    assert done.stdout.count("6x9") == 4


def test_counts_of_kernels_and_bytes(monkeypatch):
    monkeypatch.setattr(relation_benchmark, "_compiled_kernels", lambda *_: 7)
    counts = count_relation(channels=8, size=(6, 10), region_size=3, num_heads=2)
    queries, cells = 4 * 8 * 6 * 10, 4 * 8 * 3 * 5
    assert counts["least"]["bytes"] == 2 * queries + 2 * cells
    assert counts["eager"]["bytes"] > 5 * counts["least"]["bytes"]
    larger = count_relation(channels=8, size=(12, 20), region_size=5, num_heads=2)
    assert larger["eager"]["kernels"] > 2 * counts["eager"]["kernels"] > 100


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no compiler")
def test_count_of_compiled_kernels_is_small():
    options = {"num_heads": 2, "region_size": 3}
    assert 0 < relation_benchmark._compiled_kernels(8, (6, 10), options) < 20


def test_invalid_size_is_a_usage_error(root):
    done = python("tools/benchmark.py", "relation", "--sizes", "12", cwd=root)
    assert done.returncode == 2 and "got '12', expected HxW" in done.stderr
