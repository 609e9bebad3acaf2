from pathlib import Path

import pytest

from eseg_d2.apps.report.run_files import Run
from eseg_d2.apps.report.speed import data_shares, speed_rows, throughput


def run_of(*rows, batch=4):
    config = {"SOLVER": {"IMS_PER_BATCH": batch}, "MODEL": {"DEVICE": "cpu"}}
    return Run(
        Path("x"),
        "x",
        config=config,
        metrics=[dict(row, iteration=i) for i, row in enumerate(rows)],
    )


def test_speed_as_written_or_from_the_times():
    run = run_of(
        {"images_per_second": 7.0, "data_share": 0.25, "time": 1.0},
        {"time": 0.5, "data_time": 0.1},
        {"time": 0.0, "data_time": 0.1},
        {"panoptic_seg/PQ": 3.0},
    )
    assert throughput(run) == [(1, 7.0), (2, 8.0)]
    assert data_shares(run) == [(1, 25.0), (2, pytest.approx(20.0))]


def test_rows_tell_what_is_known():
    assert speed_rows(run_of({"total_loss": 1.0})) == {}
    rows = speed_rows(run_of(*[{"time": 2.0, "max_mem": 2048.0, "total_loss": 1.0}] * 90))
    assert rows == {
        "images per second, median": "2",
        "seconds an iteration, median": "2",
        "time in iterations, about": "3 min",
        "memory of the process (RSS), largest": "2.0 GiB",
    }
    run = run_of({"max_mem": 1024.0})
    run.config["MODEL"] = {"DEVICE": "cuda"}
    assert speed_rows(run) == {"GPU memory, largest": "1.0 GiB"}
