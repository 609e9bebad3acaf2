"""Checks before a run starts."""

from types import SimpleNamespace

import pytest
from detectron2.modeling import build_model

from eseg_d2.config import load_config
from eseg_d2.engine import check_launch, require_inputs

CONFIG = "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"


def arguments(**given):
    defaults = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    return SimpleNamespace(**{**defaults, "resume": False, "eval_only": False, **given})


def test_test_time_augmentation_of_panoptic_models_is_refused(scenes):
    cfg = load_config(CONFIG, ["TEST.AUG.ENABLED", "True"])
    with pytest.raises(ValueError, match="TEST.AUG.ENABLED is for semantic models.*PanopticRCNN"):
        require_inputs(cfg, eval_only=True)


def test_class_weights_that_would_be_ignored_are_refused(scenes):
    weights = ["MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", str([1.0] * 19)]
    require_inputs(load_config("configs/scenes/rsp_semantic_R50.yaml", weights), eval_only=False)
    cfg = load_config("configs/scenes/semantic_fpn_R50.yaml", weights)
    with pytest.raises(ValueError, match="CLASS_WEIGHTS is set, but SemSegFPNHead does not read"):
        require_inputs(cfg, eval_only=False)
    few = load_config("configs/scenes/rsp_semantic_R50.yaml", [*weights[:1], "[1.0, 2.0]"])
    with pytest.raises(ValueError, match="has 2 numbers; expected one for each of the 19 classes"):
        build_model(few)


def test_missing_inputs_are_named(scenes):
    cfg = load_config(CONFIG, [])
    require_inputs(cfg, eval_only=False)
    cfg.MODEL.WEIGHTS = "/nowhere/model.pth"
    with pytest.raises(FileNotFoundError, match="'/nowhere/model.pth'.*\n.*MODEL.WEIGHTS ''"):
        require_inputs(cfg, eval_only=False)
    cfg.DATASETS.TEST = ("cityscapes_fine_panoptic_val",)
    with pytest.raises(FileNotFoundError, match="cityscapes_panoptic_val.json"):
        require_inputs(cfg, eval_only=True)


@pytest.mark.parametrize(
    ("given", "world_size", "options", "message"),
    [
        ({"num_gpus": 0}, 1, (), "--num-gpus 0 .*expected at least 1"),
        ({"num_machines": 2, "machine_rank": 2}, 2, (), "--machine-rank 2; expected"),
        ({"num_machines": 3, "dist_url": "tcp://a:1"}, 3, (), "IMS_PER_BATCH is 4, .*processes, 3"),
        ({"num_machines": 2}, 2, (), "--num-machines 2 needs --dist-url tcp://FIRST_MACHINE"),
        ({"resume": True, "eval_only": True}, 1, (), "no checkpoint in OUTPUT_DIR"),
        ({"eval_only": True}, 1, (), "MODEL.WEIGHTS path"),
        ({}, 1, ("LAUNCH.TIMEOUT_SECONDS", 0), "TIMEOUT_SECONDS is 0; expected 1 second"),
        (
            *({"num_gpus": 99}, 99, ("MODEL.DEVICE", "cuda")),
            "--num-gpus 99, but this machine has.*MODEL.DEVICE cpu",
        ),
    ],
)
def test_launches_that_cannot_work_are_refused(tmp_path, given, world_size, options, message):
    cfg = load_config(CONFIG, ["OUTPUT_DIR", str(tmp_path)])
    check_launch(cfg, arguments(), 1)
    check_launch(cfg, arguments(num_gpus=4), 4)  # four processes on the CPU
    cfg.merge_from_list(list(options))  # load_config would change the device
    with pytest.raises(ValueError, match=message):
        check_launch(cfg, arguments(**given), world_size)


def test_run_is_resumed_or_started_but_never_overwritten(tmp_path):
    cfg = load_config(CONFIG, ["OUTPUT_DIR", str(tmp_path)])
    # the first start of a job that always gives --resume
    check_launch(cfg, arguments(resume=True), 1)
    tag = tmp_path / "last_checkpoint"
    tag.write_text("model_0000009.pth")
    with pytest.raises(ValueError, match=f"checkpoint that {tag} names is gone"):
        check_launch(cfg, arguments(resume=True), 1)
    checkpoint = tmp_path / "model_0000009.pth"
    checkpoint.touch()
    check_launch(cfg, arguments(resume=True), 1)
    check_launch(cfg, arguments(resume=True, eval_only=True), 1)
    with pytest.raises(ValueError, match=f"holds checkpoints .* {checkpoint}: .*--resume, or give"):
        check_launch(cfg, arguments(), 1)
