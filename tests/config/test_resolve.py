"""Completing a config: every change is returned and logged, and nothing else changes."""

import logging

import pytest
import torch
import yaml

from eseg_d2.config import load_config, merge_config, resolve_config, value_of

CONFIG = "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"
# has no class counts
BASE = "configs/Base-RSP-Panoptic.yaml"
SCENES = ("DATASETS.TRAIN", "('scenes_cityscapes_panoptic_train',)", "MODEL.DEVICE", "cpu")
SEMANTIC, ROI = "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "MODEL.ROI_HEADS.NUM_CLASSES"


@pytest.fixture(autouse=True)
def in_checkout(root, monkeypatch, package_log):
    monkeypatch.chdir(root)
    package_log.set_level(logging.INFO, "eseg_d2")


def resolved(config, *overrides, **options):
    """Return the changes that resolve_config makes to a config with overrides, by key."""
    cfg = merge_config(config, [str(word) for word in overrides])
    return {change.key: change for change in resolve_config(cfg, **options)}


def test_class_counts_come_from_the_data():
    cfg = load_config(BASE, SCENES)
    assert (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.ROI_HEADS.NUM_CLASSES) == (19, 8)
    cfg = load_config(BASE, [*SCENES, "MODEL.PANOPTIC.SEMANTIC_CLASSES", "stuff_and_things"])
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 12


@pytest.mark.parametrize(
    "key, got, expected",
    [(SEMANTIC, 54, 19), (ROI, 80, 8), ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 19, 255)],
)
def test_values_that_contradict_the_data_are_refused(tmp_path, root, key, got, expected):
    """Even Detectron2's default is refused where it is written, in overrides and files alike."""
    with pytest.raises(ValueError, match=f"{key} is {got} in the overrides, but data set 'scenes"):
        load_config(CONFIG, [key, str(got)])
    _, head, name = key.split(".")
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE_: {root / BASE}\nMODEL: {{{head}: {{{name}: {got}}}}}\n")
    with pytest.raises(ValueError, match=f"{key} is {got} in {path}.*give {key} {expected}"):
        load_config(str(path), SCENES)
    assert load_config(str(path), [*SCENES, key, str(expected)])


def test_semantic_model_needs_no_count_of_things():
    keys = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", ROI, "3"]
    assert load_config(CONFIG, keys).MODEL.ROI_HEADS.NUM_CLASSES == 3


def test_each_change_is_logged_and_made_once(caplog):
    cfg = merge_config(BASE, SCENES)
    changes = resolve_config(cfg, given={"MODEL.BIFPN.NORM": BASE}, world_size=1)
    keys = [change.key for change in changes]
    assert {SEMANTIC, ROI, "MODEL.BACKBONE.FREEZE_AT", "MODEL.RSP_HEAD.NORM"} <= {*keys}
    assert len(set(keys)) == len(keys)
    assert [record.getMessage() for record in caplog.records] == [str(c) for c in changes]
    levels = {c.key: r.levelno for c, r in zip(changes, caplog.records, strict=True)}
    assert levels["MODEL.BIFPN.NORM"] == logging.WARNING and levels[SEMANTIC] == logging.INFO
    assert "MODEL.BIFPN.NORM 'SyncBN' -> 'BN': there is one process only" in caplog.text
    assert resolve_config(cfg, world_size=1) == []


def test_only_the_reported_changes_are_made():
    before = merge_config(BASE, SCENES)
    after = before.clone()
    for change in resolve_config(after, world_size=2):
        node, _, name = change.key.rpartition(".")
        assert value_of(before, change.key) == change.before
        value_of(before, node)[name] = change.after
    assert before == after


def test_dumped_config_resolves_to_itself(tmp_path):
    cfg = load_config(BASE, SCENES, world_size=2)
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump())
    again = load_config(str(path), world_size=2)
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


@pytest.mark.parametrize(
    "config, frozen",
    [
        ("cityscapes/eseg_s", ["MODEL.BACKBONE.FREEZE_AT"]),
        ("cityscapes/rsp_semantic_R50", ["MODEL.BACKBONE.FREEZE_AT", "MODEL.RESNETS.NORM"]),
    ],
)
def test_random_layers_are_not_frozen(config, frozen):
    options = ["MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", 2]
    changes = resolved(f"configs/{config}.yaml", *options)
    assert [key for key, change in changes.items() if "random" in change.reason] == frozen
    assert changes["MODEL.BACKBONE.FREEZE_AT"].after == 0
    kept = resolved(f"configs/{config}.yaml", *options, "MODEL.WEIGHTS", "model.pth")
    assert not kept.keys() & {*frozen}


def test_device_and_precision_are_those_the_machine_supports(monkeypatch):
    amp = ("SOLVER.AMP.ENABLED", "True")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    changes = resolved(CONFIG, *amp)
    assert changes["MODEL.DEVICE"].after == "cpu"
    assert changes["SOLVER.AMP.DTYPE"].after == "bfloat16"
    assert "SOLVER.AMP.DTYPE" not in resolved(CONFIG)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not resolved(CONFIG, *amp).keys() & {"MODEL.DEVICE", "SOLVER.AMP.DTYPE"}
    with pytest.raises(ValueError, match="SOLVER.AMP.DTYPE is 'fp8'"):
        load_config(CONFIG, ["SOLVER.AMP.DTYPE", "fp8"])


def test_sync_bn_is_replaced_by_what_the_machine_supports():
    key = "MODEL.BIFPN.NORM"
    for world_size, norm in (1, "BN"), (2, "naiveSyncBN"):
        changes = resolved(BASE, *SCENES, world_size=world_size)
        assert (changes[key].before, changes[key].after) == ("SyncBN", norm)
        frozen = resolved(BASE, *SCENES, "MODEL.WEIGHTS", "model.pth", world_size=world_size)
        assert "MODEL.RESNETS.NORM" not in frozen
    assert key not in resolved(BASE, *SCENES)
    assert key not in resolved(BASE, *SCENES, "MODEL.DEVICE", "meta", world_size=2)


def test_recipe_for_another_number_of_processes_is_scaled():
    solver = ("SOLVER.IMS_PER_BATCH", 16, "SOLVER.BASE_LR", 0.04, "SOLVER.MAX_ITER", 100)
    options = (*SCENES, *solver, "SOLVER.REFERENCE_WORLD_SIZE", 8)
    changes = resolved(BASE, *options, world_size=2)
    assert {key: c.after for key, c in changes.items() if key.startswith("SOLVER")} == {
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.MAX_ITER": 400,
        "SOLVER.WARMUP_ITERS": 4000,
        "SOLVER.STEPS": (120000,),
        "SOLVER.CHECKPOINT_PERIOD": 20000,
        "SOLVER.REFERENCE_WORLD_SIZE": 2,
    }
    assert not [key for key in resolved(BASE, *options, world_size=8) if key.startswith("SOLVER")]
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH is 16; expected a multiple of .*, 3"):
        resolved(BASE, *options, "SOLVER.REFERENCE_WORLD_SIZE", 3, world_size=2)


def test_proposal_files_are_refused():
    with pytest.raises(ValueError, match="LOAD_PROPOSALS is True.*can run code"):
        load_config(CONFIG, ["MODEL.LOAD_PROPOSALS", "True"])
