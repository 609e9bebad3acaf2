"""A resumed run follows its own config."""

import pytest
from runs import SMALL_MODEL, TINY

from eseg_d2.engine import Trainer, load_config

CONFIG = "configs/scenes/rsp_semantic_R50.yaml"


def make_trainer(root, output, *overrides):
    options = [*SMALL_MODEL, *TINY, "OUTPUT_DIR", str(output), "SOLVER.WARMUP_ITERS", "0"]
    options += map(str, overrides)
    trainer = Trainer(load_config(str(root / CONFIG), options, world_size=1))
    trainer.resume_or_load(resume=True)
    return trainer


def rate_of(trainer):
    return trainer.optimizer.param_groups[0]["lr"]


@pytest.fixture
def run(root, scenes, tmp_path):
    """Run 4 of 10 iterations, with a learning rate of 0.1 and a step at iteration 8."""
    schedule = ("SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "(8,)")
    trainer = make_trainer(
        root, tmp_path, "SOLVER.MAX_ITER", 10, "SOLVER.CHECKPOINT_PERIOD", 4, *schedule
    )
    trainer.max_iter = 5  # the tests continue from the checkpoint of iteration 3
    trainer.train()
    (tmp_path / "model_final.pth").unlink()
    return tmp_path, schedule


def test_resumed_run_takes_solver_values_from_its_config(root, run, caplog):
    output, schedule = run
    same = make_trainer(root, output, "SOLVER.MAX_ITER", 10, *schedule)
    assert (same.start_iter, rate_of(same)) == (4, pytest.approx(0.1))
    changed = make_trainer(
        root, output, "SOLVER.MAX_ITER", 10, *schedule, "SOLVER.BASE_LR", 0.02,
        "SOLVER.WEIGHT_DECAY", 0.5, "SOLVER.MOMENTUM", 0.3,
    )  # fmt: skip
    assert rate_of(changed) == pytest.approx(0.02)
    assert changed.optimizer.param_groups[0]["weight_decay"] == 0.5
    assert changed.optimizer.param_groups[0]["momentum"] == 0.3
    assert any("momentum_buffer" in state for state in changed.optimizer.state.values())
    changed.train()
    assert rate_of(changed) == pytest.approx(0.002)


def test_other_number_of_processes_scales_the_schedule(root, run):
    """The run had 2 processes with 2 images per update; one process alone has 1 image."""
    output, schedule = run
    scaled = make_trainer(
        root, output, "SOLVER.MAX_ITER", 10, *schedule, "SOLVER.REFERENCE_WORLD_SIZE", 2
    )
    assert scaled.cfg.SOLVER.IMS_PER_BATCH == 1
    assert (scaled.start_iter, scaled.max_iter) == (8, 20)
    assert rate_of(scaled) == pytest.approx(0.05)
    before = scaled._data_state["position"]
    scaled.train()
    assert rate_of(scaled) == pytest.approx(0.005)
    state = scaled.state_dict()["data"]["order"]
    assert state["position"] >= before + 12


def test_checkpoint_beyond_max_iter_resumes_with_any_schedule(root, run):
    output, _ = run
    for name in "WarmupPolyLR", "WarmupCosineLR", "WarmupMultiStepLR":
        options = ("SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.STEPS", "()", "SOLVER.MAX_ITER", 2)
        trainer = make_trainer(root, output, *options)
        assert trainer.start_iter == 4


def test_schedule_extends_to_a_larger_max_iter(root, scenes, tmp_path):
    polynomial = ("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR")
    make_trainer(root, tmp_path, *polynomial, "SOLVER.MAX_ITER", 2).train()
    longer = make_trainer(root, tmp_path, *polynomial, "SOLVER.MAX_ITER", 5)
    cfg = longer.cfg.SOLVER
    assert rate_of(longer) == pytest.approx(cfg.BASE_LR * 0.6**cfg.POLY_LR_POWER)
    longer.train()
    assert longer.iter == 5


def test_config_that_was_not_scaled_is_refused(root, scenes, tmp_path):
    cfg = load_config(str(root / CONFIG), ["SOLVER.REFERENCE_WORLD_SIZE", "2"])
    with pytest.raises(ValueError, match="REFERENCE_WORLD_SIZE is 2, but .*world_size=1"):
        Trainer(cfg)
