"""Comparison of runs: earlier runs, configs and metrics."""

import json
import os

from eseg_d2.apps.report.comparison import config_differences, earlier_runs, metric_rows
from eseg_d2.apps.report.run_folder import Run, read_run


def write_run(folder, *, started, quality=40.0, **settings):
    folder.mkdir()
    config = {"SEED": 1, "OUTPUT_DIR": str(folder), "SOLVER": {"BASE_LR": 0.1}, **settings}
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is valid YAML
    os.utime(folder / "config.yaml", (started, started))
    results = {"panoptic_seg": {"PQ": quality}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_earlier_runs_are_older_finished_and_of_the_same_configuration(tmp_path):
    own = read_run(write_run(tmp_path / "own", started=5000), "own")
    write_run(tmp_path / "b", started=4000, SEED=2, quality=30.0)
    write_run(tmp_path / "a", started=3000, MODEL={"WEIGHTS": "w"})
    write_run(tmp_path / "later", started=6000)
    write_run(tmp_path / "other", started=4000, SOLVER={"BASE_LR": 0.2})
    (write_run(tmp_path / "running", started=4000) / "results.json").unlink()
    (write_run(tmp_path / "broken", started=4000) / "config.yaml").write_text("{")
    (tmp_path / "file").write_text("")
    found = earlier_runs(own)
    assert [run.name for run in found] == ["a", "b"]
    assert found[1].seed == "2" and found[1].results == {"panoptic_seg/PQ": 30.0}
    own.config = {}
    assert earlier_runs(own) == []


def test_configs_differ_in_changed_and_missing_keys_and_not_from_an_unknown_one():
    a = {"A": {"B": 1, "C": [1, 2]}, "D": "x", "E": {}}
    b = {"A": {"B": 1, "C": [1, 3]}, "E": {}}
    assert config_differences([a, b]) == {"A.C": ["[1, 2]", "[1, 3]"], "D": ["x", ""]}
    assert config_differences([a, {}, b])["D"] == ["x", "?", ""]
    assert config_differences([a, a]) == config_differences([a, {}]) == {}


def test_metrics_are_compared_with_the_first_run(tmp_path):
    first = Run(
        tmp_path, "a", results={"bbox/AP": 10.0, "panoptic_seg/PQ": 40.0, "bbox/AP-car": 1.0}
    )
    second = Run(tmp_path, "b", results={"panoptic_seg/PQ": 42.5, "sem_seg/pACC": None})
    rows = {row["name"]: row for row in metric_rows([first, second])}
    assert [*rows] == ["PQ", "box AP", "sem_seg pACC"]
    assert rows["PQ"]["values"] == [40.0, 42.5] and rows["PQ"]["differences"] == [0.0, 2.5]
    assert rows["box AP"]["values"] == [10.0, None]
    assert rows["box AP"]["differences"] == [0.0, None]
