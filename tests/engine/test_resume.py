"""A run that is killed and resumed equals an undisturbed one."""

import json
import os
import random
import shutil
import signal
import time

import pytest
import runs

CONFIGS = "configs/scenes/eseg_lite_s.yaml", "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"


def run(config, output, *overrides, **keywords):
    process = runs.start(config, output, *overrides, **keywords)
    process.join(300)
    assert process.exitcode == 0


@pytest.mark.parametrize("config", CONFIGS)
def test_resumed_run_equals_an_undisturbed_one(root, scenes, tmp_path, config):
    """It has evaluations, drop path, sampled proposals, averaged weights, precise statistics."""
    options = ["SOLVER.MAX_ITER", "8", "SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "4"]
    options += ["MODEL.EFFICIENTNET.DROP_PATH_RATE", "0.2", "MODEL_EMA.ENABLED", "True"]
    options += [*runs.VAL, "TEST.VALIDATION_LOSS.ENABLED", "True", "SOLVER.ACCUMULATE_STEPS", "2"]
    options += ["TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(root / config, whole, *options)
    shutil.copytree(whole, broken)
    # as if killed while it wrote the checkpoint of iteration 5
    (broken / "model_final.pth").unlink()
    (broken / "model_0000005.pth").write_bytes(b"PK\x03\x04 the beginning")
    (broken / "last_checkpoint").write_text("model_0000005.pth")
    run(root / config, broken, *options, "DATALOADER.NUM_WORKERS", "2")
    runs.assert_same_run(broken, whole)
    evaluations = [(out / "evaluations.json").read_text() for out in (whole, broken)]
    assert evaluations[0] == evaluations[1]


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_run_survives_thirty_kills(root, scenes, tmp_path):
    """The kills come at random moments, many of them while a checkpoint is written.

    SOLVER.MAX_ITER is out of reach, so that the run cannot finish before it is killed; the
    undisturbed run then gets the length that the killed one has reached.
    """
    config = root / "configs/scenes/rsp_semantic_R50.yaml"
    options = [*runs.SMALL_MODEL, "SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.MAX_ITER", "1000000"]
    whole, out = tmp_path / "whole", tmp_path / "killed"
    moments = random.Random(0)
    for _ in range(30):
        seen = len(list(out.glob("*.pth")))
        lines = runs.lines_written(out)
        process = runs.start(config, out, *options)
        # a resumed run first removes lines
        runs.wait_until(lambda lines=lines: runs.lines_written(out) > lines, process)
        for _ in range(moments.randrange(50)):
            os.listdir(out)
        time.sleep(moments.uniform(0, 0.2))
        kill(process)
        assert len(list(out.glob("*.pth"))) >= min(seen, 1)
    end = max(runs.metrics(out)) + 3
    run(config, out, *options, end=end)
    run(config, whole, *options, end=end)
    runs.assert_same_run(out, whole)
    assert len(runs.metrics(out)) >= 30
    assert not list(out.glob("*.partial"))


@pytest.mark.parametrize("resume", [True, False])
def test_records_of_a_run_killed_before_its_first_checkpoint_are_kept(
    root, scenes, tmp_path, resume
):
    """The next run starts new records and sets the old ones aside."""
    config = root / "configs/scenes/rsp_semantic_R50.yaml"
    options = [*runs.SMALL_MODEL, "SOLVER.CHECKPOINT_PERIOD", "0"]
    process = runs.start(config, tmp_path, *options, "SOLVER.MAX_ITER", "1000000")
    runs.wait_until(lambda: runs.lines_written(tmp_path) >= 2, process)
    kill(process)
    before = {name: (tmp_path / name).read_bytes() for name in ("metrics.json", "run.json")}
    run(config, tmp_path, *options, "SOLVER.MAX_ITER", "3", resume=resume)
    assert sorted(runs.metrics(tmp_path)) == [0, 1, 2]
    assert len(json.loads((tmp_path / "run.json").read_text())["starts"]) == 1
    for name, content in before.items():
        assert (tmp_path / f"{name}.1").read_bytes() == content


def test_damaged_records_are_kept_when_a_run_is_resumed(root, scenes, tmp_path):
    config = root / "configs/scenes/rsp_semantic_R50.yaml"
    options = [*runs.SMALL_MODEL, *runs.VAL]
    run(config, tmp_path, *options, "SOLVER.MAX_ITER", "4")
    lines = (tmp_path / "metrics.json").read_bytes().splitlines(keepends=True)
    damaged = {
        "metrics.json": b"".join([*lines[:2], b"\xff\0\n", *lines[2:], b'{"iter']),
        "evaluations.json": b'[{"iteration": 3',
        "run.json": b"\0" * 50,
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
    run(config, tmp_path, *options, "SOLVER.MAX_ITER", "6")
    lines = runs.metrics(tmp_path).items()
    assert [at for at, line in lines if "total_loss" in line] == list(range(6))
    for name, content in damaged.items():
        assert (tmp_path / f"{name}.1").read_bytes() == content
        if name != "metrics.json":
            assert json.loads((tmp_path / name).read_text())
