"""Reading of a run's folder, including one that failed or was killed."""

import json
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eseg_d2.apps.report.run_folder import read_run, run_labels


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text("SOLVER: {MAX_ITER: 3, IMS_PER_BATCH: 2}\nSEED: 7\n")
    return tmp_path


def write_metrics(folder, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metrics.json").write_text("\n".join(lines))


def test_rows_of_an_iteration_are_merged_and_later_lines_win(folder):
    write_metrics(
        folder,
        {"iteration": 1, "total_loss": 5.0, "lr": 1.0},
        {"iteration": 2, "total_loss": 4.0},
        {"iteration": 1, "panoptic_seg/PQ": 12.0},
        {"iteration": 1, "total_loss": 3.0},  # after a resume
    )
    run = read_run(folder, "a")
    first = {"iteration": 1, "total_loss": 3.0, "lr": 1.0, "panoptic_seg/PQ": 12.0}
    assert run.metrics == [first, {"iteration": 2, "total_loss": 4.0}]
    assert run.evaluations == [(1, {"panoptic_seg/PQ": 12.0})]
    assert run.status == "finished, 3 iterations"
    assert run.setting("SEED") == 7 and run.setting("SEED.NONE", "x") == "x"


def test_killed_run_is_read_as_far_as_it_was_written(folder):
    write_metrics(folder, {"iteration": 0, "total_loss": 1.0}, "[1]", '{"iteration": true}', '{"it')
    run = read_run(folder, "a")
    assert run.status == "at iteration 1 of 3"
    assert any("3 broken line" in note for note in run.notes)
    assert run.results == {} and run.confusion is None and run.classes == {}


def test_diverged_loss_is_noted(folder):
    write_metrics(
        folder, {"iteration": 0, "total_loss": 1.0}, {"iteration": 1, "total_loss": 1e999}
    )
    run = read_run(folder, "a")
    assert any("is not finite in iteration 1" in note for note in run.notes)
    assert "total_loss" not in run.metrics[1]


def test_last_evaluation_stands_in_for_missing_results(folder):
    entries = [
        {"iteration": n, "results": {"sem_seg": {"mIoU": 10.0 * n, "IoU-car": None}}}
        for n in (2, 1)
    ]
    (folder / "evaluations.json").write_text(json.dumps([*entries, "x", {"iteration": "y"}]))
    write_metrics(folder, {"iteration": 1, "total_loss": 1.0, "sem_seg/mIoU": 1.0})
    run = read_run(folder, "a")
    assert [n for n, _ in run.evaluations] == [1, 2]
    assert run.results == {"sem_seg/mIoU": 20.0, "sem_seg/IoU-car": None}
    assert run.classes == {"IoU": {"car": None}}


def test_broken_files_are_noted(folder):
    (folder / "inference").mkdir()
    names = ["metrics.json", "results.json", "evaluations.json", "run.json", "log.txt"]
    names += ["inference/panoptic_quality.json", "inference/sem_seg_confusion.json"]
    for name in names:
        (folder / name).write_bytes(b"\xff{[")
    run = read_run(folder, "a")
    for name in names:
        assert name == "log.txt" or any(Path(name).name in note for note in run.notes), name


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["iteration", "results", "starts", "PQ"]), inner)
    ),
    max_leaves=6,
)


@given(content=JSON)
def test_any_json_content_can_be_read(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "inference").mkdir()
    names = ["metrics", "results", "evaluations", "run"]
    names += ["inference/panoptic_quality", "inference/sem_seg_confusion"]
    for name in names:
        (folder / f"{name}.json").write_text(json.dumps(content))
    run = read_run(folder, "a")
    assert run.iterations == 0 and run.confusion is None


def test_failure_is_read_from_the_log_until_the_run_is_restarted(folder):
    begin = "[11/21 06:28:39] detectron2 INFO: Rank of current process: 0. World size: 1\n"
    failed = (
        begin + "[11/21 06:28:40] d2 ERROR: Exception during training:\nTraceback:\n"
        "ValueError: <b>\n[11/21 06:28:41] d2.hooks INFO: Total time\n"
    )
    (folder / "log.txt").write_text(failed)
    run = read_run(folder, "a")
    assert run.error == "Traceback:\nValueError: <b>"
    assert run.status == "failed after 0 iterations"
    (folder / "log.txt").write_text(failed + begin)
    assert read_run(folder, "a").error == ""


def test_environment_is_read_from_run_json_or_else_the_log(folder):
    log = "x INFO: Environment info:\n------  ----\nnumpy   2.0\nPython  3.11 [GCC]\n------  ----\n"
    (folder / "log.txt").write_text(log)
    assert read_run(folder, "a").environment == {"numpy": "2.0", "Python": "3.11 [GCC]"}
    (folder / "run.json").write_text('{"environment": {"torch": "2.1"}}')
    assert read_run(folder, "a").environment == {"torch": "2.1"}


def test_start_is_read_from_run_json_or_else_the_events_or_the_config(folder):
    os.utime(folder / "config.yaml", (3e8, 3e8))
    assert read_run(folder, "a").started.timestamp() == 3e8
    for seconds in 200000002, 200000001:
        (folder / f"events.out.tfevents.{seconds}.host.1.0").touch()
    assert read_run(folder, "a").started.timestamp() == 200000001
    (folder / "run.json").write_text('{"starts": [{"time": "2001-02-03T04:05:06+00:00"}, {}]}')
    assert read_run(folder, "a").started == datetime(2001, 2, 3, 4, 5, 6, tzinfo=timezone.utc)


def test_python_tags_of_a_config_are_not_executed(folder):
    mark = folder / "mark"
    (folder / "config.yaml").write_text(f"A: !!python/object/apply:os.mkdir ['{mark}']\n")
    run = read_run(folder, "a")
    assert run.config == {} and not mark.exists()
    assert any("config.yaml cannot be read" in note for note in run.notes)


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_run(tmp_path / "none", "a")
    with pytest.raises(ValueError, match="is not the OUTPUT_DIR of a run"):
        read_run(tmp_path, "a")


def test_labels_are_short_and_unique(tmp_path):
    assert run_labels([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert run_labels([tmp_path / "x/s1", tmp_path / "y/s1"]) == ["x/s1", "y/s1"]
    with pytest.raises(ValueError, match="twice"):
        run_labels([tmp_path / "a", tmp_path / "b/../a"])
