import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs import SHORT

from eseg_d2.apps.benchmarks.study import (
    Run,
    _figure,
    _mean_and_spread,
    make_runs,
    pair_accuracy,
    paired_difference,
    train_all,
)

SMALL = (*SHORT, "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2")


def test_pair_accuracy_is_balanced_and_ignores_other_predictions():
    confusion = np.array([[90, 10, 1000], [3, 1, 0], [0, 500, 7]])
    assert pair_accuracy(confusion, (0, 1)) == pytest.approx((90 + 25) / 2)
    assert pair_accuracy(np.diag([5, 6, 7]), (0, 2)) == 100
    assert math.isnan(pair_accuracy(np.diag([5, 0, 7]), (0, 1)))


def test_runs_of_configs_with_one_name_would_overwrite_each_other(tmp_path):
    runs = make_runs([Path("a/one.yaml"), Path("a/two.yaml")], [1, 2], tmp_path)
    assert len({run.folder for run in runs}) == 4
    with pytest.raises(ValueError, match="several configs are called one"):
        make_runs([Path("a/one.yaml"), Path("b/one.yaml")], [1], tmp_path)


def test_mean_and_spread_of_what_is_defined():
    assert _mean_and_spread([1.0, 2.0, 3.0]) == "2.0 ± 1.0"
    assert _mean_and_spread([1.0, None, 3.0]) == "2.0 ± 1.4 (2 of 3)"
    assert _mean_and_spread([None, None]) == "-"


def test_paired_differences_with_their_confidence_interval():
    assert paired_difference([3.0, 5.0, 4.0], [1.0, 1.0, 1.0]) == "+3.0 (+0.5 .. +5.5)"
    assert paired_difference([3.0, None, 4.0], [3.0, 1.0, 5.0]) == "-0.5 (-6.9 .. +5.9)"
    assert paired_difference([3.0], [1.0]) == "+2.0"
    assert paired_difference([None], [1.0]) == "-"


def test_panoptic_runs_on_data_without_the_pairs(tmp_path):
    run = Run(tmp_path / "one.yaml", 1, tmp_path)
    (run.folder / "inference").mkdir(parents=True)
    results = {"sem_seg": {"mIoU": 50.0}, "panoptic_seg": {"PQ": 1.0, "PQ_th": 2.0, "PQ_st": None}}
    (run.folder / "results.json").write_text(json.dumps(results))
    confusion = {"classes": ["road", "sidewalk", "car"], "pixels": np.eye(3).tolist()}
    (run.folder / "inference" / "sem_seg_confusion.json").write_text(json.dumps(confusion))
    (run.folder / "metrics.json").write_text('{"time": 1.0}\n{"time": 3.0}\n{"iteration": 4}\n')
    assert run.results() == {
        "PQ": 1.0,
        "PQ_th": 2.0,
        "PQ_st": None,
        "mIoU": 50.0,
        "road/sidewalk": 100.0,
    }
    assert run.seconds() == 2.0


def test_plot_shows_all_of_its_marks_and_names_models():
    costs = {"rsp_semantic_R50": 0.78e9, "deeplab_v3_R50": 2.91e9, "other": 1e9}
    values = {"mIoU": [50.0, 52.0], "road/sidewalk": [80.0, None]}
    rows = [{"config": name, "macs": macs, "results": values} for name, macs in costs.items()]
    figure = _figure(rows)
    figure.canvas.draw()
    for panel in figure.axes:
        assert len(panel.lines) == 6
        for line in panel.lines:
            half = line.get_markersize() / 2 * figure.dpi / 72
            x, _ = panel.transData.transform((line.get_xdata()[0], 0))
            assert panel.bbox.x0 <= x - half and x + half <= panel.bbox.x1
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["RSP", "DeepLabV3", "other"]


def study(root, output, *options):
    command = [sys.executable, "tools/study.py", "--output", output, "--seeds", "1,2"]
    for name in "rsp_semantic", "deeplab_v3":
        command += ["--config-file", f"configs/scenes/{name}_R50.yaml"]
    words = [*command, "--jobs", "2", *options]
    return subprocess.run([*map(str, words)], cwd=root, capture_output=True, text=True)


@pytest.mark.slow
def test_study_runs_reports_and_is_used_again(root, scenes, tmp_path):
    first = study(root, tmp_path, *SMALL)
    assert first.returncode == 0, first.stderr[-3000:]
    rows = json.loads((tmp_path / "study.json").read_text())
    assert [row["config"] for row in rows] == ["rsp_semantic_R50", "deeplab_v3_R50"]
    for row in rows:
        assert row["seeds"] == [1, 2] and row["macs"] > 0
        own = [tmp_path / row["config"] / f"seed{seed}" / "results.json" for seed in (1, 2)]
        expected = [json.loads(path.read_text())["sem_seg"]["mIoU"] for path in own]
        assert row["results"]["mIoU"] == expected
        assert set(row["results"]) == {"mIoU", "road/sidewalk", "person/rider"}
    assert (tmp_path / "study.md").read_text().strip() in first.stdout
    assert (tmp_path / "study.png").stat().st_size > 0

    made = own[0].stat().st_mtime_ns
    again = study(root, tmp_path, *SMALL)
    assert again.returncode == 0 and own[0].stat().st_mtime_ns == made

    other = study(root, tmp_path, *SMALL, "SOLVER.BASE_LR", "0.001")
    assert other.returncode == 1 and "choose another --output" in other.stderr


def test_failed_run_is_named(tmp_path):
    script = tmp_path / "train_net.py"
    script.write_text("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="broken, seed 5 failed with status 3: see .*console"):
        train_all([Run(tmp_path / "broken.yaml", 5, tmp_path)], script, [], jobs=1)
