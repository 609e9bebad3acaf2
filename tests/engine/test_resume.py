"""A run that is killed and resumed is the run that was not disturbed."""

import os
import random
import shutil
import signal
import time

import pytest
import runs

CONFIGS = "configs/scenes/eseg_lite_s.yaml", "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"


def run(config, output, *overrides):
    process = runs.start(config, output, *overrides)
    process.join(300)
    assert process.exitcode == 0


@pytest.mark.parametrize("config", CONFIGS)
def test_resumed_run_equals_an_undisturbed_one(root, scenes, tmp_path, config):
    """With evaluation on the way, drop path, proposals that are drawn, an average of weights."""
    options = ["SOLVER.MAX_ITER", "8", "SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "4"]
    options += ["MODEL.EFFICIENTNET.DROP_PATH_RATE", "0.2", "MODEL_EMA.ENABLED", "True"]
    options += ["DATASETS.TEST", "('scenes_cityscapes_panoptic_val',)"]
    options += ["TEST.VALIDATION_LOSS.ENABLED", "True", "SOLVER.ACCUMULATE_STEPS", "2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(root / config, whole, *options)
    shutil.copytree(whole, broken)
    # as if it had been killed while it wrote the checkpoint of iteration 5
    (broken / "model_final.pth").unlink()
    (broken / "model_0000005.pth").write_bytes(b"PK\x03\x04 the beginning")
    (broken / "last_checkpoint").write_text("model_0000005.pth")
    run(root / config, broken, *options, "DATALOADER.NUM_WORKERS", "2")
    runs.assert_same_run(broken, whole)
    evaluations = [(out / "evaluations.json").read_text() for out in (whole, broken)]
    assert evaluations[0] == evaluations[1]


def test_thirty_kills(root, scenes, tmp_path):
    """At random moments, many while a checkpoint is written: each other iteration writes one."""
    config = root / "configs/scenes/rsp_semantic_R50.yaml"
    options = [*runs.SMALL_MODEL, "SOLVER.MAX_ITER", "100", "SOLVER.CHECKPOINT_PERIOD", "1"]
    whole, out = tmp_path / "whole", tmp_path / "killed"
    run(config, whole, *options)
    moments = random.Random(0)
    for _ in range(30):
        seen = len(list(out.glob("*.pth")))
        process = runs.start(config, out, *options)
        begun = time.monotonic()
        while not (out / "metrics.json").exists() and time.monotonic() < begun + 60:
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 2))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(list(out.glob("*.pth"))) >= min(seen, 1)
    assert not (out / "model_final.pth").exists()
    run(config, out, *options)
    runs.assert_same_run(out, whole)
    assert not list(out.glob("*.partial"))
