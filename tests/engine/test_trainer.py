"""The trainer: optimizer, moving average, precise batch norm and initial weights."""

import copy
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.engine import DefaultTrainer
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import update_bn_stats
from runs import SMALL_MODEL, TINY

import eseg_d2  # noqa: F401, registers
from eseg_d2.engine import Trainer, load_config, write_results
from eseg_d2.engine.hooks import EMAHook
from eseg_d2.utils.errors import RunError


def test_results_are_strict_json(tmp_path):
    path = tmp_path / "results.json"
    results = {"panoptic_seg": {"PQ": 12.5, "PQ_th": float("nan")}, "bbox": {}}
    write_results(results, str(path))
    assert json.loads(path.read_text()) == {
        "panoptic_seg": {"PQ": 12.5, "PQ_th": None},
        "bbox": {},
    }


def test_optimizer_is_saved_and_restored(root, scenes, tmp_path):
    """Detectron2 0.6 leaves it out, so that a resumed run loses its momentum and learning rate."""
    cfg = load_config(
        str(root / "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"),
        ["OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2"]
        + ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]
        + ["INPUT.MIN_SIZE_TRAIN", "(64,)", "DATASETS.TEST", "()"],
    )
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    saved = torch.load(tmp_path / "model_0000001.pth", weights_only=True)
    assert saved["iteration"] == 1

    resumed = Trainer(cfg)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    state = resumed.optimizer.state_dict()
    expected = saved["trainer"]["_trainer"]["optimizer"]
    assert state["param_groups"][0]["lr"] == expected["param_groups"][0]["lr"]
    momenta = [entry["momentum_buffer"] for entry in state["state"].values()]
    assert momenta and any(m.abs().sum() > 0 for m in momenta)
    for index, entry in expected["state"].items():
        torch.testing.assert_close(
            state["state"][index]["momentum_buffer"], entry["momentum_buffer"]
        )


def ema_trainer(root, output, *overrides):
    settings = ["OUTPUT_DIR", str(output), "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2"]
    settings += ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", "DATASETS.TEST", "()"]
    settings += ["INPUT.MIN_SIZE_TRAIN", "(64, 64)", "MODEL_EMA.DECAY", "0.75", *overrides]
    return Trainer(load_config(str(root / "configs/scenes/eseg_lite_s.yaml"), settings))


def weight_of(model):
    return model.sem_seg_head.predictor.weight.detach().clone()


def test_parameters_with_equal_settings_share_a_group(root):
    cfg = load_config(
        str(root / "configs/scenes/eseg_lite_s.yaml"), ["SOLVER.WEIGHT_DECAY_NORM", "0.5"]
    )
    model = Trainer.build_model(cfg)
    keys = ("lr", "weight_decay", "momentum", "nesterov")
    single = {
        parameter: {key: group[key] for key in keys}
        for group in DefaultTrainer.build_optimizer(cfg, model).param_groups
        for parameter in group["params"]
    }
    groups = Trainer.build_optimizer(cfg, model).param_groups
    assert len(groups) == 2 and len(single) > 100
    for group in groups:
        for parameter in group["params"]:
            assert single.pop(parameter) == {key: group[key] for key in keys}
    assert not single


def test_optimizer_updates_as_that_of_detectron2(root):
    cfg = load_config(
        str(root / "configs/scenes/eseg_lite_s.yaml"), ["SOLVER.WEIGHT_DECAY_NORM", "0.5"]
    )
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    models = [Trainer.build_model(cfg) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [
        factory.build_optimizer(cfg, model)
        for factory, model in zip((Trainer, DefaultTrainer), models, strict=True)
    ]
    for step in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_predictions_do_not_depend_on_the_memory_format(root):
    path = str(root / "configs/scenes/eseg_lite_s.yaml")
    last, first = (
        Trainer.build_model(load_config(path, ["MODEL.CHANNELS_LAST", value])).eval()
        for value in ("True", "False")
    )
    first.load_state_dict(last.state_dict())
    stem = [model.backbone.bottom_up.network.conv_stem.weight for model in (last, first)]
    assert [w.is_contiguous(memory_format=torch.channels_last) for w in stem] == [True, False]
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 64, 96))).float()
    with torch.no_grad():
        got, expected = (m([{"image": image}])[0]["sem_seg"] for m in (last, first))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_averaged_weights_are_evaluated_and_saved(root, scenes, tmp_path):
    trainer = ema_trainer(root, tmp_path)
    trainer.resume_or_load(resume=False)
    expected, count = None, 0
    step = trainer.run_step

    def run_step():
        nonlocal expected, count
        step()
        new = weight_of(trainer.model)
        decay = min(0.75, (1 + count) / (10 + count))
        expected = new if expected is None else decay * expected + (1 - decay) * new
        count += 1

    trainer.run_step = run_step
    evaluated = []
    trainer.test = lambda cfg, model: evaluated.append(model) or {}
    trainer.train()
    assert evaluated == [trainer.ema.model]
    torch.testing.assert_close(weight_of(trainer.ema.model), expected)
    assert not torch.allclose(weight_of(trainer.model), expected)
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    key = "sem_seg_head.predictor.weight"
    torch.testing.assert_close(saved["model"][key], expected)
    torch.testing.assert_close(saved["training_model"][key], weight_of(trainer.model))


@pytest.mark.parametrize("decay", [0.0, 0.6])
def test_average_forgets_its_first_weights(decay):
    model = torch.nn.Linear(1, 1)
    hook, expected = EMAHook(model, decay), None
    for count in range(30):
        with torch.no_grad():
            model.weight.fill_(float(count))
        hook.after_step()
        used = min(decay, (1 + count) / (10 + count))
        expected = 0.0 if expected is None else used * expected + (1 - used) * count
        assert hook.model.weight.item() == pytest.approx(expected)
    assert hook.model.weight.item() == pytest.approx(29 - decay / (1 - decay), abs=0.01)


def test_average_continues_after_resuming(root, scenes, tmp_path):
    trainer = ema_trainer(root, tmp_path)
    trainer.resume_or_load(resume=False)
    trainer.train()
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    saved = torch.load(tmp_path / "model_0000001.pth", weights_only=True)
    resumed = ema_trainer(root, tmp_path)
    resumed.resume_or_load(resume=True)
    key = "sem_seg_head.predictor.weight"
    torch.testing.assert_close(weight_of(resumed.model), saved["training_model"][key])
    torch.testing.assert_close(weight_of(resumed.ema.model), saved["model"][key])
    resumed.ema.after_step()  # the first update of a new average would copy the weights
    decay = (1 + 2) / (10 + 2)  # the decay after two updates; later it is 0.75
    expected = decay * saved["model"][key] + (1 - decay) * saved["training_model"][key]
    torch.testing.assert_close(weight_of(resumed.ema.model), expected)


def test_average_can_start_in_a_resumed_run(root, scenes, tmp_path, package_log):
    plain = ema_trainer(root, tmp_path, "MODEL_EMA.ENABLED", "False")
    plain.resume_or_load(resume=False)
    plain.train()
    resumed = ema_trainer(root, tmp_path)
    resumed.resume_or_load(resume=True)
    assert "MODEL_EMA.ENABLED False, but it is True now" in package_log.text
    before = weight_of(plain.model)
    for model in resumed.model, resumed.ema.model:
        assert torch.equal(weight_of(model), before)
    with torch.no_grad():
        resumed.model.sem_seg_head.predictor.weight.add_(1)
    resumed.ema.after_step()
    torch.testing.assert_close(weight_of(resumed.ema.model), before + 1 - 5 / 14)


def test_resuming_without_the_average_continues_with_the_trained_weights(
    root, scenes, tmp_path, package_log
):
    averaged = ema_trainer(root, tmp_path)
    averaged.resume_or_load(resume=False)
    averaged.train()
    resumed = ema_trainer(root, tmp_path, "MODEL_EMA.ENABLED", "False")
    resumed.resume_or_load(resume=True)
    assert "MODEL_EMA.ENABLED True, but it is False now" in package_log.text
    assert torch.equal(weight_of(resumed.model), weight_of(averaged.model))
    assert not torch.equal(weight_of(resumed.model), weight_of(averaged.ema.model))


@pytest.mark.parametrize(
    "changed",
    [
        ("SOLVER.WEIGHT_DECAY_NORM", "None"),
        ("SOLVER.BIAS_LR_FACTOR", "2.0", "SOLVER.WEIGHT_DECAY_BIAS", "0.1"),
        ("MODEL.BACKBONE.FREEZE_AT", "2"),
    ],
)
def test_changed_parameter_groups_are_refused_and_named(root, scenes, tmp_path, changed):
    def make(*overrides):
        options = [*SMALL_MODEL, *TINY, "OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", "2"]
        cfg = load_config(str(root / "configs/scenes/rsp_semantic_R50.yaml"), options)
        cfg.merge_from_list(overrides)  # load_config would not freeze random weights
        return Trainer(cfg)

    trainer = make()
    trainer.resume_or_load(resume=False)
    trainer.train()
    with pytest.raises(ValueError, match="optimizer does not match this config") as error:
        make(*changed).resume_or_load(resume=True)
    for key, value in zip(changed[::2], changed[1::2], strict=True):
        assert re.search(rf"{key} \S+ -> {value}", str(error.value)), str(error.value)


def test_estimated_size_of_a_checkpoint_is_its_file_size(root, scenes, tmp_path, monkeypatch):
    """The moving average is included, and shared memory counts once."""
    trainer = ema_trainer(root, tmp_path, "SOLVER.MAX_ITER", "1")
    trainer.resume_or_load(resume=False)
    trainer.train()
    size = (tmp_path / "model_final.pth").stat().st_size

    def limit(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))

    limit(1.1 * size)
    trainer.checkpointer.save("model_final", iteration=0)
    limit(0.9 * size)
    with pytest.raises(RunError, match="No space left on device; it needs"):
        trainer.checkpointer.save("model_final", iteration=0)


def test_precise_statistics_are_those_of_the_saved_model(root, scenes, tmp_path):
    trainer = ema_trainer(
        root, tmp_path, "TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2"
    )
    trainer.resume_or_load(resume=False)
    trainer.train()
    # a new loader gives the same batches
    expected = copy.deepcopy(trainer.evaluated_model).train()
    batches = iter(trainer.build_train_loader(trainer.cfg))
    with EventStorage():
        update_bn_stats(expected, [next(batches) for _ in range(2)], 2)
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    names = [name for name, _ in expected.named_buffers() if "running_" in name]
    assert len(names) > 10
    for name in names:
        wanted = expected.state_dict()[name]
        torch.testing.assert_close(saved["model"][name], wanted, rtol=1e-3, atol=1e-4)
        if "running_mean" in name:
            assert not torch.equal(saved["training_model"][name], wanted)


def test_precise_statistics_of_a_resumed_run_are_those_of_an_uninterrupted_one(
    root, scenes, tmp_path
):
    options = ["TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2"]
    options += ["TEST.EVAL_PERIOD", "2"]
    for name, resume in (("whole", False), ("parts", False), ("parts", True)):
        torch.manual_seed(1)  # for the initial weights
        trainer = ema_trainer(root, tmp_path / name, *options)
        trainer.resume_or_load(resume=resume)
        if name == "parts" and not resume:
            trainer.max_iter, total = 2, trainer.max_iter
        trainer.train()
    assert trainer.start_iter == 2 and trainer.max_iter == total
    whole, parts = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
        for name in ("whole", "parts")
    )
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def test_new_run_takes_loaded_weights(root, scenes, tmp_path):
    first = ema_trainer(root, tmp_path)
    weights = tmp_path / "weights.pth"
    torch.save({"model": first.model.state_dict()}, weights)
    trainer = ema_trainer(root, tmp_path, "MODEL.WEIGHTS", str(weights), "SEED", "9")
    trainer.resume_or_load(resume=False)
    torch.testing.assert_close(weight_of(trainer.model), weight_of(first.model))
    torch.testing.assert_close(weight_of(trainer.ema.model), weight_of(first.model))


def test_backbone_weights_are_loaded_if_the_normalisation_matches(root, scenes, tmp_path):
    import timm

    from eseg_d2.modeling.backbone.efficientnet import in_zoo_form

    source = timm.create_model("efficientnet_b0")
    weights = tmp_path / "b0.pth"
    torch.save(in_zoo_form(source.state_dict(), "efficientnet_b0.ra_in1k"), weights)
    options = ["MODEL.WEIGHTS", str(weights)]
    with pytest.raises(ValueError, match="PIXEL_MEAN .110.0, 115.0, 115.0.*b0.pth were trained"):
        ema_trainer(root, tmp_path, *options).resume_or_load(resume=False)
    options += ["MODEL.PIXEL_MEAN", "[123.675, 116.28, 103.53]"]
    options += ["MODEL.PIXEL_STD", "[58.395, 57.12, 57.375]"]
    trainer = ema_trainer(root, tmp_path, *options)
    trainer.resume_or_load(resume=False)
    for model in trainer.model, trainer.ema.model:
        assert torch.equal(
            model.backbone.bottom_up.network.conv_stem.weight, source.conv_stem.weight
        )


def test_invalid_decay_is_refused(root, scenes, tmp_path):
    with pytest.raises(ValueError, match="MODEL_EMA.DECAY is 1.5"):
        ema_trainer(root, tmp_path, "MODEL_EMA.DECAY", "1.5")
