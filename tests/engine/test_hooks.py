"""Hooks around the training steps: evaluation, best weights, validation loss, metrics, NaN."""

import json
import logging

import pytest
import torch
from detectron2.data import DatasetCatalog
from runs import VAL, make_trainer

from eseg_d2.config import merge_config
from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.engine.hooks import ValidationLossHook
from eseg_d2.utils.errors import RunError


def lines(output):
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def test_metrics_are_logged_to_console_and_files(scenes, tmp_path, package_log):
    package_log.set_level(logging.INFO)
    make_trainer(tmp_path, "SOLVER.MAX_ITER", 6, "LOGGING.PERIOD", 3).train()
    first, second = lines(tmp_path)[:2]
    assert (first["iteration"], second["iteration"]) == (2, 5)
    assert second["images_per_second"] == pytest.approx(2 / second["time"], rel=0.5)
    assert 0 <= second["data_share"] <= 1 and second["max_mem"] > 10 and second["grad_norm"] > 0
    assert list(tmp_path.glob("events.out.tfevents.*"))
    console = [r.getMessage() for r in package_log.records if r.getMessage().startswith("iter ")]
    assert [line.split()[1] for line in console] == ["3/6", "6/6"]
    for word in "eta", "total_loss", "loss_sem_seg", "lr", "s/iter", "images/s", "MiB":
        assert word in console[1], word
    for line in lines(tmp_path):
        json.dumps(line, allow_nan=False)


def test_best_weights_are_kept(scenes, tmp_path):
    options = ["SOLVER.MAX_ITER", 8, "TEST.EVAL_PERIOD", 2, *VAL, "SOLVER.CHECKPOINT_PERIOD", 100]
    metrics = ("TEST.BEST_METRICS", "['sem_seg/mIoU', 'sem_seg/pACC', 'sem_seg/none']")
    trainer = make_trainer(tmp_path, *options, *metrics)
    values = iter([0.3, 0.5, 0.4, float("nan")])
    weights = {}

    def evaluate():
        value = next(values)
        weights[value] = trainer.model.state_dict()["sem_seg_head.predictor.bias"].clone()
        return {"sem_seg": {"mIoU": value, "pACC": -value}}

    trainer.test = lambda cfg, model: evaluate()
    trainer.train()
    best = torch.load(tmp_path / "model_best_sem_seg_mIoU.pth", weights_only=True)
    assert best["best"] == {"sem_seg/mIoU": 0.5} and best["iteration"] == 3
    assert torch.equal(best["model"]["sem_seg_head.predictor.bias"], weights[0.5])
    other = torch.load(tmp_path / "model_best_sem_seg_pACC.pth", weights_only=True)
    assert other["iteration"] == 1
    assert not list(tmp_path.glob("*none*"))
    history = json.loads((tmp_path / "evaluations.json").read_text())
    assert [e["iteration"] for e in history] == [1, 3, 5, 7]
    assert history[-1]["results"]["sem_seg"]["mIoU"] is None
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_evaluation_does_not_change_training(scenes, tmp_path):
    """Evaluation draws random numbers, which must not change those of training."""
    make_trainer(tmp_path / "a", "SOLVER.MAX_ITER", 4).train()
    evaluating = ["TEST.EVAL_PERIOD", 1, *VAL, "TEST.VALIDATION_LOSS.ENABLED", True]
    trainer = make_trainer(tmp_path / "b", "SOLVER.MAX_ITER", 4, *evaluating)
    test = trainer.test
    trainer.test = lambda cfg, model: [test(cfg, model), torch.rand(3)][0]
    trainer.train()
    curves = [
        [line["total_loss"] for line in lines(tmp_path / run) if "total_loss" in line]
        for run in ("a", "b")
    ]
    assert len(curves[0]) == 4 and curves[0] == curves[1]


def test_validation_loss_is_the_mean_over_the_images(scenes, tmp_path):
    options = ["SOLVER.MAX_ITER", 1, *VAL, "TEST.VALIDATION_LOSS.ENABLED", True]
    trainer = make_trainer(tmp_path, *options, "SOLVER.BASE_LR", 0.0)
    before = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
    hook = next(h for h in trainer._hooks if isinstance(h, ValidationLossHook))
    got = hook._losses()
    assert all(torch.equal(b, before[n]) for n, b in trainer.model.named_buffers())
    assert all(module.training for module in trainer.model.modules())
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    mapper = PanopticMapper.for_validation(trainer.cfg, "scenes_cityscapes_panoptic_val")
    images = DatasetCatalog.get("scenes_cityscapes_panoptic_val")
    with torch.no_grad():
        expected = [float(trainer.model([mapper(i)])["loss_sem_seg"]) for i in images]
    assert len(expected) == 4
    assert got["validation/loss_sem_seg"] == pytest.approx(sum(expected) / 4)
    assert got["validation/total_loss"] == got["validation/loss_sem_seg"]
    trainer.model.train()
    trainer.train()
    assert any("validation/total_loss" in line for line in lines(tmp_path))


def poison(trainer, iterations):
    """Make the losses of some iterations NaN."""

    def hook(module, given, losses):
        if trainer.iter in iterations and module.training:
            return {name: loss * float("nan") for name, loss in losses.items()}
        return losses

    trainer.model.register_forward_hook(hook)


def test_loss_that_is_not_finite_ends_the_run_and_names_the_images(scenes, tmp_path):
    trainer = make_trainer(tmp_path, "SOLVER.MAX_ITER", 9, "SOLVER.CHECKPOINT_PERIOD", 2)
    poison(trainer, {4})
    with pytest.raises(RunError) as error:
        trainer.train()
    message = str(error.value)
    assert "at iteration 4 (lr 0." in message and "loss_sem_seg nan" in message
    assert message.count("_leftImg8bit.png") == 2
    assert f"The last good checkpoint is {tmp_path}/model_0000003.pth" in message
    assert "SOLVER.BASE_LR" in message and "MAX_SKIPPED_STEPS" in message
    resumed = make_trainer(tmp_path, "SOLVER.MAX_ITER", 9, resume=True)
    assert resumed.start_iter == 4
    resumed.train()
    assert (tmp_path / "model_final.pth").exists()


def test_steps_that_are_not_finite_are_skipped_up_to_the_limit(scenes, tmp_path):
    options = ["SOLVER.MAX_ITER", 9, "SOLVER.MAX_SKIPPED_STEPS", 2, "SOLVER.CHECKPOINT_PERIOD", 3]
    trainer = make_trainer(tmp_path, *options)
    poison(trainer, {1, 4})
    trainer.train()
    assert [line["iteration"] for line in lines(tmp_path) if "total_loss" in line][:2] == [0, 2]
    assert all(torch.isfinite(p).all() for p in trainer.model.state_dict().values())

    trainer = make_trainer(tmp_path / "many", *options)
    poison(trainer, {1, 4, 5})
    with pytest.raises(RunError, match=r"iteration 5 .*(?s:.*)now 2"):
        trainer.train()

    trainer = make_trainer(tmp_path / "many", *options, resume=True)
    assert trainer._guard.skipped == 1  # the count in the checkpoint of iteration 2
    poison(trainer, {4, 5})
    with pytest.raises(RunError, match="iteration 5"):
        trainer.train()


def test_finished_run_trains_no_more_but_completes_its_evaluation(scenes, tmp_path, package_log):
    make_trainer(tmp_path, "SOLVER.MAX_ITER", 3, *VAL).train()
    history = (tmp_path / "evaluations.json").read_text()
    final = (tmp_path / "model_final.pth").read_bytes()
    make_trainer(tmp_path, "SOLVER.MAX_ITER", 3, *VAL, resume=True).train()
    assert "Nothing to train: the checkpoint has done 3 iterations" in package_log.text
    assert (tmp_path / "evaluations.json").read_text() == history
    assert (tmp_path / "model_final.pth").read_bytes() == final
    (tmp_path / "evaluations.json").unlink()  # as if killed during the evaluation
    make_trainer(tmp_path, "SOLVER.MAX_ITER", 3, *VAL, resume=True).train()
    assert (tmp_path / "evaluations.json").read_text() == history


def test_missing_wandb_is_reported():
    from importlib.util import find_spec

    from eseg_d2.engine.writers import require_wandb

    cfg = merge_config("configs/rsp_panoptic_R50.yaml", ["LOGGING.WANDB", "True"])
    if find_spec("wandb"):
        require_wandb(cfg)
    else:
        with pytest.raises(ValueError, match="pip install wandb"):
            require_wandb(cfg)


@pytest.mark.parametrize(
    "options, message",
    [
        (["LOGGING.PERIOD", 0], "LOGGING.PERIOD is 0"),
        (["MODEL_EMA.ENABLED", True, "MODEL_EMA.DECAY", 1.5], "MODEL_EMA.DECAY is 1.5"),
        (["SOLVER.CHECKPOINTS_TO_KEEP", -1], "CHECKPOINTS_TO_KEEP is -1"),
        (["SOLVER.ACCUMULATE_STEPS", 0], "ACCUMULATE_STEPS is 0"),
        (["TEST.VALIDATION_LOSS.ENABLED", True], "DATASETS.TEST is empty"),
    ],
)
def test_invalid_values_are_named(scenes, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, *options)
