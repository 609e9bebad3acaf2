"""Studies: runs of several configs and seeds, at equal steps and at equal time."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import study_runs
from runs import SHORT
from study_runs import write_run

from eseg_d2.apps.benchmarks import study as study_module
from eseg_d2.apps.benchmarks.study import Run, equal_time_runs, make_runs, pair_accuracy, train_all

SMALL = (*SHORT, "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2")
CONFIGS = [Path("ours.yaml"), Path("stock.yaml"), Path("slow.yaml")]


def test_pair_accuracy_is_balanced_and_ignores_other_predictions():
    confusion = np.array([[90, 10, 1000], [3, 1, 0], [0, 500, 7]])
    assert pair_accuracy(confusion, (0, 1)) == pytest.approx((90 + 25) / 2)
    assert pair_accuracy(np.diag([5, 6, 7]), (0, 2)) == 100
    assert math.isnan(pair_accuracy(np.diag([5, 0, 7]), (0, 1)))


def test_configs_with_the_same_name_are_refused(tmp_path):
    runs = make_runs([Path("a/one.yaml"), Path("a/two.yaml")], [1, 2], tmp_path)
    assert len({run.folder for run in runs}) == 4
    with pytest.raises(ValueError, match="several configs are called one"):
        make_runs([Path("a/one.yaml"), Path("b/one.yaml")], [1], tmp_path)


def test_results_of_a_panoptic_run_without_every_pair_of_classes(tmp_path):
    run = Run(tmp_path / "one.yaml", 1, tmp_path / "run")
    write_run(run, results={"panoptic_seg": {"PQ": 1.0, "PQ_th": 2.0, "PQ_st": None}}, seconds=2.0)
    expected = {"PQ": 1.0, "PQ_th": 2.0, "PQ_st": None, "mIoU": 50.0, "road/sidewalk": 100.0}
    assert run.results() == expected
    assert run.class_ious() == {"road": 50.0, "sidewalk": 20.0, "car": None}
    assert run.seconds() == 2.0


def test_run_is_done_once_evaluated_at_its_end(tmp_path):
    run = Run(tmp_path / "one.yaml", 1, tmp_path / "run", ("SEED", "3"))
    assert not run.is_done()
    write_run(run, iterations=600, done=400)
    assert not run.is_done()
    write_run(run, iterations=600)
    assert run.is_done()
    with pytest.raises(ValueError, match="holds a run with the overrides .*SEED.*name another"):
        Run(run.config, 1, run.folder).is_done()


def test_failed_run_is_named(tmp_path):
    script = tmp_path / "train_net.py"
    script.write_text("raise SystemExit(3)")
    run = Run(tmp_path / "broken.yaml", 5, tmp_path / "run")
    with pytest.raises(RuntimeError, match="broken, seed 5 failed with status 3: see .*console"):
        train_all([run], script, jobs=1)


def study_at_equal_steps(output, seconds, *, overrides=(), **options):
    """Write finished runs of CONFIGS with two seeds; ``seconds`` per iteration by config."""
    runs = make_runs(CONFIGS, [1, 2], output, overrides)
    for run in runs:
        write_run(run, seconds=seconds[run.name], **options)
    return runs


SECONDS = {"ours": 2.0, "stock": 1.0, "slow": 3.0}


def test_other_configs_get_the_training_time_of_the_first(tmp_path):
    runs = study_at_equal_steps(tmp_path, SECONDS, overrides=("SOLVER.BASE_LR", "0.1"))
    timed = equal_time_runs(runs, tmp_path)
    expected = [(name, seed) for seed in (1, 2) for name in ("stock", "slow")]
    assert [(run.name, run.seed) for run in timed] == expected
    own = {run.name: run.overrides[2:] for run in timed}
    assert own == {"stock": ("SOLVER.MAX_ITER", "1200"), "slow": ("SOLVER.MAX_ITER", "400")}
    assert all(run.overrides[:2] == ("SOLVER.BASE_LR", "0.1") for run in timed)
    assert timed[0].folder == tmp_path / "stock" / "equal_time_seed1"


def test_steps_of_the_schedule_are_scaled_with_the_iterations(tmp_path):
    runs = study_at_equal_steps(tmp_path, SECONDS, steps=(300, 450))
    stock, slow, *_ = equal_time_runs(runs, tmp_path)
    assert stock.overrides[2:] == ("SOLVER.STEPS", "(600, 900)")
    assert slow.overrides[2:] == ("SOLVER.STEPS", "(200, 300)")


def test_iterations_at_equal_time_stay_as_first_chosen(tmp_path):
    runs = study_at_equal_steps(tmp_path, SECONDS)
    timed = equal_time_runs(runs, tmp_path)
    study_at_equal_steps(tmp_path, {**SECONDS, "stock": 1.1})
    assert equal_time_runs(runs, tmp_path) == timed
    in_turn = sorted(runs, key=lambda run: run.name != "stock")
    with pytest.raises(ValueError, match="for the reference ours .* not stock"):
        equal_time_runs(in_turn, tmp_path)


def test_runs_too_short_to_time_are_refused(tmp_path):
    runs = study_at_equal_steps(tmp_path, {**SECONDS, "slow": None})
    with pytest.raises(ValueError, match="slow/seed1 was too short .* SOLVER.MAX_ITER"):
        equal_time_runs(runs, tmp_path)
    assert not (tmp_path / "equal_time.json").exists()


TRAINER = f"""
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, {str(Path(study_runs.__file__).parent)!r})
from study_runs import write_run

words = sys.argv[4:]
settings = dict(zip(words[::2], words[1::2]))
folder = Path(settings["OUTPUT_DIR"])
with open(folder / "starts", "a") as file:
    file.write("x")
run = SimpleNamespace(folder=folder, overrides=tuple(words[:-4]))
seconds = 2.0 if folder.parent.name == "ours" else 1.0
write_run(run, iterations=int(settings.get("SOLVER.MAX_ITER", 600)), seconds=seconds)
"""


def test_each_run_is_trained_once_at_equal_steps_and_at_equal_time(tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "POLL_SECONDS", 0.05)
    script = tmp_path / "train_net.py"
    script.write_text(TRAINER)
    for _ in range(2):
        runs = make_runs(CONFIGS[:2], [1, 2], tmp_path / "study")
        train_all(runs, script, jobs=2)
        timed = equal_time_runs(runs, tmp_path / "study")
        train_all(timed, script, jobs=2)
    assert [run.iterations for run in (*runs, *timed)] == [600] * 4 + [1200] * 2
    assert all((run.folder / "starts").read_text() == "x" for run in (*runs, *timed))


def test_a_terminated_study_takes_its_trainings_along(root, tmp_path):
    (tmp_path / "tools").mkdir()
    shutil.copy(root / "tools" / "study.py", tmp_path / "tools")
    pid_file = tmp_path / "pid"
    (tmp_path / "train_net.py").write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(f'{{os.getpid()}}\\n')\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, tmp_path / "tools" / "study.py", "--config-file", "one.yaml"]
    options = ["--seeds", "1", "--output", tmp_path / "study"]
    with subprocess.Popen([*map(str, command + options)], stderr=subprocess.PIPE, cwd=root) as tool:
        while not (pid_file.exists() and pid_file.read_text().endswith("\n")):
            assert tool.poll() is None
            time.sleep(0.1)
        tool.terminate()
        _, error = tool.communicate(timeout=60)
    assert tool.returncode == 1 and b"the same command continues" in error
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def study(root, output, *options):
    command = [sys.executable, "tools/study.py", "--output", output, "--seeds", "1,2"]
    for name in "rsp_semantic", "deeplab_v3":
        command += ["--config-file", f"configs/scenes/{name}_R50.yaml"]
    words = [*command, "--jobs", "2", "--equal-time", *options]
    return subprocess.run([*map(str, words)], cwd=root, capture_output=True, text=True)


@pytest.mark.slow
def test_study_trains_reports_and_reuses_finished_runs(root, scenes, tmp_path):
    first = study(root, tmp_path, *SMALL)
    assert first.returncode == 0, first.stderr[-3000:]
    written = json.loads((tmp_path / "study.json").read_text())
    rows = written["equal_steps"]
    assert [row["config"] for row in rows] == ["rsp_semantic_R50", "deeplab_v3_R50"]
    for row in rows:
        assert row["seeds"] == [1, 2] and row["macs"] > 0 and row["iterations"] == 4
        own = [tmp_path / row["config"] / f"seed{seed}" / "results.json" for seed in (1, 2)]
        expected = [json.loads(path.read_text())["sem_seg"]["mIoU"] for path in own]
        assert row["results"]["mIoU"] == expected
        assert set(row["results"]) == {"mIoU", "road/sidewalk", "person/rider"}
    assert written["environments"][0].keys() >= {"cpu", "torch", "detectron2", "cpu_threads"}
    chosen = json.loads((tmp_path / "equal_time.json").read_text())["iterations"]
    assert chosen == {"deeplab_v3_R50": written["equal_time"][1]["iterations"]}
    assert written["equal_time"][0] == rows[0]
    assert (tmp_path / "study.md").read_text().strip() in first.stdout
    assert (tmp_path / "study.png").stat().st_size > 0

    results = [*own, tmp_path / "deeplab_v3_R50" / "equal_time_seed2" / "results.json"]
    made = [path.stat().st_mtime_ns for path in results]
    again = study(root, tmp_path, *SMALL)
    assert again.returncode == 0 and [path.stat().st_mtime_ns for path in results] == made

    other = study(root, tmp_path, *SMALL, "SOLVER.BASE_LR", "0.001")
    assert other.returncode == 1 and "name another --output" in other.stderr
