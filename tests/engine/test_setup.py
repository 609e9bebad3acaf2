from types import SimpleNamespace

import pytest

import eseg_d2  # noqa: F401, registers
from eseg_d2.engine import check_launch, load_config, require_inputs

CONFIG = "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"


@pytest.fixture(autouse=True)
def in_checkout(root, monkeypatch):
    monkeypatch.chdir(root)


def arguments(**given):
    defaults = {
        "num_gpus": 1,
        "num_machines": 1,
        "machine_rank": 0,
        "dist_url": "auto",
        "resume": False,
        "eval_only": False,
    }
    return SimpleNamespace(**{**defaults, **given})


def test_class_counts_come_from_the_data():
    cfg = load_config(CONFIG, ["MODEL.PANOPTIC.SEMANTIC_CLASSES", "stuff_and_things"])
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 12
    cfg = load_config(CONFIG, ["MODEL.ROI_HEADS.NUM_CLASSES", "3"])
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 8


def test_errors_of_the_command_line_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config file 'nowhere.yaml'"):
        load_config("nowhere.yaml", [])
    with pytest.raises(ValueError, match="SOLVER.BASE_LRR.*Did you mean .*SOLVER.BASE_LR"):
        load_config(CONFIG, ["SOLVER.BASE_LRR", "1"])
    with pytest.raises(ValueError, match="overrides"):
        load_config(CONFIG, ["SOLVER.MAX_ITER"])
    with pytest.raises(ValueError, match="overrides.*MAX_ITER"):
        load_config(CONFIG, ["SOLVER.MAX_ITER", "many"])
    ranged = ["INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", "(64,)"]
    with pytest.raises(ValueError, match=r"MIN_SIZE_TRAIN is \(64,\).*smallest and the largest"):
        load_config(CONFIG, ranged)
    bad = tmp_path / "bad.yaml"
    bad.write_text("MODEL:\n  RSP_HEAD:\n    CHANELS: 3\n")
    with pytest.raises(
        ValueError, match=r"bad.yaml.*CHANELS.*Did you mean MODEL.RSP_HEAD.CHANNELS"
    ):
        load_config(str(bad), [])
    bad.write_text("MODEL: [")
    with pytest.raises(ValueError, match="bad.yaml"):
        load_config(str(bad), [])
    with pytest.raises(ValueError, match="SEMANTIC_CLASSES is 'every'"):
        load_config(CONFIG, ["MODEL.PANOPTIC.SEMANTIC_CLASSES", "every"])


def test_test_time_augmentation_is_for_semantic_models(scenes):
    cfg = load_config(CONFIG, ["TEST.AUG.ENABLED", "True"])
    with pytest.raises(ValueError, match="TEST.AUG.ENABLED is for semantic models.*PanopticRCNN"):
        require_inputs(cfg, eval_only=True)


def test_missing_inputs_are_named(scenes):
    cfg = load_config(CONFIG, [])
    require_inputs(cfg, eval_only=False)
    cfg.MODEL.WEIGHTS = "/nowhere/model.pth"
    with pytest.raises(FileNotFoundError, match="'/nowhere/model.pth'.*\n.*MODEL.WEIGHTS ''"):
        require_inputs(cfg, eval_only=False)
    cfg.DATASETS.TEST = ("cityscapes_fine_panoptic_val",)
    with pytest.raises(FileNotFoundError, match="cityscapes_panoptic_val.json"):
        require_inputs(cfg, eval_only=True)


def test_launches_that_cannot_work_are_refused(tmp_path):
    cfg = load_config(CONFIG, ["OUTPUT_DIR", str(tmp_path)])
    check_launch(cfg, arguments(), 1)
    check_launch(cfg, arguments(num_gpus=4), 4)  # processes on the CPU
    with pytest.raises(ValueError, match="--num-gpus 0 .*expected 1 or more"):
        check_launch(cfg, arguments(num_gpus=0), 1)
    with pytest.raises(ValueError, match="--machine-rank 2; expected"):
        check_launch(cfg, arguments(num_machines=2, machine_rank=2), 2)
    with pytest.raises(ValueError, match="IMS_PER_BATCH is 4, which 3 processes"):
        check_launch(cfg, arguments(num_machines=3, dist_url="tcp://first:29500"), 3)
    with pytest.raises(ValueError, match="--num-machines 2 needs --dist-url tcp://FIRST_MACHINE"):
        check_launch(cfg, arguments(num_machines=2), 2)
    with pytest.raises(ValueError, match="no checkpoint in OUTPUT_DIR"):
        check_launch(cfg, arguments(resume=True, eval_only=True), 1)
    with pytest.raises(ValueError, match="MODEL.WEIGHTS path"):
        check_launch(cfg, arguments(eval_only=True), 1)
    cfg.LAUNCH.TIMEOUT_SECONDS = 0
    with pytest.raises(ValueError, match="LAUNCH.TIMEOUT_SECONDS is 0; expected 1 second"):
        check_launch(cfg, arguments(), 1)
    cfg.LAUNCH.TIMEOUT_SECONDS = 1
    cfg.MODEL.DEVICE = "cuda"
    with pytest.raises(ValueError, match="--num-gpus 99, but this machine has.*MODEL.DEVICE cpu"):
        check_launch(cfg, arguments(num_gpus=99), 99)


def test_run_is_resumed_or_started_and_never_overwritten(tmp_path):
    cfg = load_config(CONFIG, ["OUTPUT_DIR", str(tmp_path)])
    check_launch(cfg, arguments(resume=True), 1)  # as a job that is queued again gives it at first
    tag = tmp_path / "last_checkpoint"
    tag.write_text("model_0000009.pth")
    with pytest.raises(ValueError, match=f"checkpoint that {tag} names is gone"):
        check_launch(cfg, arguments(resume=True), 1)
    checkpoint = tmp_path / "model_0000009.pth"
    checkpoint.touch()
    check_launch(cfg, arguments(resume=True), 1)
    check_launch(cfg, arguments(resume=True, eval_only=True), 1)
    with pytest.raises(ValueError, match=f"holds checkpoints .* {checkpoint} .*--resume, or give"):
        check_launch(cfg, arguments(), 1)


HARMFUL = [
    '!!python/object/apply:os.mkdir ["{canary}"]',
    '!!python/object/new:os.mkdir ["{canary}"]',
    "!!python/name:os.mkdir",
    "!!python/module:os",
    "!!python/object/apply:eval [\"__import__('os').mkdir('{canary}')\"]",
]


@pytest.mark.parametrize("tag", HARMFUL)
@pytest.mark.parametrize("in_base", [False, True])
def test_configs_run_no_code(tmp_path, tag, in_base):
    canary = tmp_path / "canary"
    files = [tmp_path / "config.yaml"]
    if in_base:
        files.append(tmp_path / "base.yaml")
        files[0].write_text("_BASE_: base.yaml\nSEED: 1\n")
    files[-1].write_text("OUTPUT_DIR: " + tag.format(canary=canary) + "\n")
    with pytest.raises(ValueError, match=f"{files[-1].name} is not valid yaml: .*python/"):
        load_config(str(files[0]), [])
    assert not canary.exists()


@pytest.mark.parametrize("tag", HARMFUL)
def test_overrides_run_no_code(tmp_path, tag):
    canary = tmp_path / "canary"
    value = tag.format(canary=canary)
    assert value == load_config(CONFIG, ["OUTPUT_DIR", value]).OUTPUT_DIR
    value = f"__import__('os').mkdir({str(canary)!r})"
    assert value == load_config(CONFIG, ["OUTPUT_DIR", value]).OUTPUT_DIR
    assert not canary.exists()


def test_a_base_that_is_not_there(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("_BASE_: nowhere.yaml\n")
    with pytest.raises((ValueError, FileNotFoundError), match="nowhere.yaml"):
        load_config(str(config), [])


@pytest.mark.parametrize("content", ["text", "[1, 2]", "", "3", "_BASE_: config.yaml", "\0"])
def test_files_that_are_no_config(tmp_path, content):
    config = tmp_path / "config.yaml"
    config.write_text(content)
    with pytest.raises(ValueError, match="config.yaml"):
        load_config(str(config), [])


def test_proposal_files_are_refused():
    with pytest.raises(ValueError, match="LOAD_PROPOSALS is True.*can run code"):
        load_config(CONFIG, ["MODEL.LOAD_PROPOSALS", "True"])


@pytest.mark.parametrize(
    "config, frozen",
    [
        ("cityscapes/eseg_s", "MODEL.BACKBONE.FREEZE_AT 0"),
        ("cityscapes/rsp_semantic_R50", "MODEL.BACKBONE.FREEZE_AT 0, MODEL.RESNETS.NORM BN"),
    ],
)
def test_random_layers_are_not_frozen_and_the_log_names_what_the_model_has(config, frozen, caplog):
    keys = ["MODEL.WEIGHTS", "", "MODEL.EFFICIENTNET.PRETRAINED", ""]
    cfg = load_config(f"configs/{config}.yaml", [*keys, "MODEL.BACKBONE.FREEZE_AT", "2"])
    assert cfg.MODEL.BACKBONE.FREEZE_AT == 0
    (line,) = [r.getMessage() for r in caplog.records if "random weights" in r.getMessage()]
    assert line.endswith(f"none is frozen ({frozen}).")


def test_nothing_frozen_says_nothing(caplog):
    load_config("configs/scenes/eseg_s.yaml", [])
    assert not [r for r in caplog.records if "random weights" in r.getMessage()]
