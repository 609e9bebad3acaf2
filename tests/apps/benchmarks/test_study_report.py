"""Report of a study: tables, costs and the plot."""

import json
from pathlib import Path

import pytest
from study_runs import write_run

from eseg_d2.apps.benchmarks import study_report
from eseg_d2.apps.benchmarks.study import Run, equal_time_runs, make_runs
from eseg_d2.apps.benchmarks.study_report import (
    _cost,
    _figure,
    _mean_and_spread,
    paired_difference,
    report,
)

MACHINE = {"torch": "2.14", "detectron2": "0.6", "python": "3.11", "cpu": "a CPU"}


def test_mean_and_spread_leave_out_undefined_values():
    assert _mean_and_spread([1.0, 2.0, 3.0]) == "2.0 ± 1.0"
    assert _mean_and_spread([1.0, None, 3.0]) == "2.0 ± 1.4 (2 of 3)"
    assert _mean_and_spread([None, None]) == "-"


def test_paired_difference_has_a_confidence_interval():
    assert paired_difference([3.0, 5.0, 4.0], [1.0, 1.0, 1.0]) == "+3.0 (+0.5 .. +5.5)"
    assert paired_difference([3.0, None, 4.0], [3.0, 1.0, 5.0]) == "-0.5 (-6.9 .. +5.9)"
    assert paired_difference([3.0], [1.0]) == "+2.0"
    assert paired_difference([None], [1.0]) == "-"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Write runs of two configs with two seeds; the second config is twice as fast."""
    monkeypatch.setattr(study_report, "_cost", lambda run: {"macs": 2e9, "params": 3e6})
    runs = make_runs([Path("ours.yaml"), Path("stock.yaml")], [1, 2], tmp_path)
    for run in runs:
        ours = run.name == "ours"
        miou = 50.0 + run.seed + 3 * ours
        write_run(run, miou=miou, seconds=2.0 if ours else 1.0, cpu_threads="1", **MACHINE)
    return runs


def test_report_at_equal_steps(runs, tmp_path):
    text = report(runs, tmp_path)
    assert (tmp_path / "study.md").read_text() == text + "\n"
    assert "| stock | 51.5 ± 0.7 | 100.0 ± 0.0 | 2.00 | 3.00 | 1.00 | 600 | 2 |" in text
    assert "| ours - stock | +3.0 (+3.0 .. +3.0) | +0.0 (+0.0 .. +0.0) |" in text
    assert "| IoU | ours | stock |" in text
    assert "| road | 54.5 ± 0.7 | 51.5 ± 0.7 |" in text
    assert "| car | - | - |" in text
    assert text.count("Trained with") == 1
    assert "torch 2.14, detectron2 0.6, python 3.11, a CPU, CPU threads of a run: 1" in text
    study = json.loads((tmp_path / "study.json").read_text())
    assert study.keys() == {"environments", "equal_steps"}
    assert study["environments"] == [{**MACHINE, "cpu_threads": "1"}]
    ours, _ = study["equal_steps"]
    assert ours["class_ious"] == {"road": [54, 55], "sidewalk": [20, 20], "car": [None, None]}
    assert ours["seconds"] == [2, 2]


def test_report_at_equal_time(runs, tmp_path):
    timed = equal_time_runs(runs, tmp_path)
    for run in timed:
        write_run(run, miou=53.0 + run.seed, iterations=1200, cpu_threads="1", **MACHINE)
    steps, time = report(runs, tmp_path, timed).split("At equal time:")
    assert "| stock | 51.5 ± 0.7 |" in steps and "| 600 | 2 |" in steps
    assert "| stock | 54.5 ± 0.7 |" in time and "| 1200 | 2 |" in time
    assert "| ours | 54.5 ± 0.7 |" in time
    assert "| ours - stock | +0.0 (+0.0 .. +0.0) |" in time
    study = json.loads((tmp_path / "study.json").read_text())
    assert [row["iterations"] for row in study["equal_time"]] == [600, 1200]
    assert study["equal_time"][1]["results"]["mIoU"] == [54, 55]


def test_panoptic_study_names_every_machine_and_has_no_table_of_classes(runs, tmp_path):
    for run in runs:
        found = {"panoptic_seg": {"PQ": 40.0, "PQ_th": 30.0, "PQ_st": 50.0}}
        write_run(run, results=found, **MACHINE, gpu=f"GPU {run.seed}")
    text = report(runs, tmp_path)
    assert "| IoU |" not in text and "| config | PQ |" in text
    assert text.endswith(
        "Trained with torch 2.14, detectron2 0.6, python 3.11, GPU 1.\n\n"
        "Trained with torch 2.14, detectron2 0.6, python 3.11, GPU 2."
    )


def test_cost_is_measured_at_the_models_input_size(root, scenes, tmp_path):
    config = root / "configs/scenes/semantic_fpn_R50.yaml"
    small, large = (
        _cost(Run(config, 1, tmp_path, ("INPUT.MIN_SIZE_TEST", lines))) for lines in ("64", "128")
    )
    assert large["macs"] == pytest.approx(4 * small["macs"])
    assert large["params"] == small["params"]


@pytest.mark.parametrize("metrics", [["mIoU"], ["mIoU", "road/sidewalk"]], ids=len)
def test_plot_shows_every_marker_and_names_the_models(metrics, tmp_path):
    costs = {
        "rsp_semantic_R50": 0.78e9,
        "rsp_semantic_R50_plain": 0.77e9,
        "deeplab_v3_R50": 2.91e9,
        "eseg_lite_s_P9": 1.2e9,
        "other": 1e9,
    }
    values = {"mIoU": [50.0, 52.0], "road/sidewalk": [80.0, None]}
    values = {metric: values[metric] for metric in metrics}
    rows = [{"config": name, "macs": macs, "results": values} for name, macs in costs.items()]
    figure = _figure(rows)
    figure.savefig(tmp_path / "study.png")  # computes the layout
    for panel in figure.axes:
        assert len(panel.lines) == 2 * len(rows)
        for line in panel.lines:
            half = line.get_markersize() / 2 * figure.dpi / 72
            x, _ = panel.transData.transform((line.get_xdata()[0], 0))
            assert panel.bbox.x0 <= x - half and x + half <= panel.bbox.x1
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("RSP", "RSP, plain upsampling", "DeepLabV3", "ESeg-Lite-S, up to P9", "other")
    ]
    frame = legend.get_window_extent()
    assert frame.x0 >= 0 and frame.x1 <= figure.bbox.x1 and frame.y1 <= figure.bbox.y1
    assert all(panel.bbox.y1 <= frame.y0 < figure.bbox.y1 for panel in figure.axes)
