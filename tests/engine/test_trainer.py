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
from runs import make_trainer

from eseg_d2.engine import Trainer, load_config, write_results
from eseg_d2.engine.hooks import EMAHook
from eseg_d2.engine.train_step import build_clipping
from eseg_d2.utils.errors import RunError

KEY = "sem_seg_head.predictor.weight"


def test_results_are_strict_json(tmp_path):
    path = tmp_path / "results.json"
    results = {"panoptic_seg": {"PQ": 12.5, "PQ_th": float("nan")}, "bbox": {}}
    write_results(results, str(path))
    expected = {"panoptic_seg": {"PQ": 12.5, "PQ_th": None}, "bbox": {}}
    assert json.loads(path.read_text()) == expected


def ema_trainer(output, *overrides, resume=False):
    options = ["SOLVER.MAX_ITER", "4", "MODEL_EMA.DECAY", "0.75", *overrides]
    return make_trainer(output, *options, config="eseg_lite_s", resume=resume)


def weight_of(model):
    return model.state_dict()[KEY].clone()


@pytest.mark.parametrize(
    "clip",
    [("ENABLED", "False"), ("CLIP_TYPE", "value", "CLIP_VALUE", "0.01"), ("CLIP_TYPE", "norm")],
    ids=str,
)
def test_optimizer_updates_and_clips_as_that_of_detectron2(root, clip):
    """Parameters with equal settings share one group."""
    keys = [f"SOLVER.CLIP_GRADIENTS.{key}" for key in clip[::2]]
    options = [word for pair in zip(keys, clip[1::2], strict=True) for word in pair]
    options += ["MODEL.DEVICE", "cpu", "SOLVER.WEIGHT_DECAY_NORM", "0.5"]
    cfg = load_config(str(root / "configs/scenes/eseg_lite_s.yaml"), options)
    ours = Trainer.build_model(cfg)
    theirs = copy.deepcopy(ours)
    optimizers = Trainer.build_optimizer(cfg, ours), DefaultTrainer.build_optimizer(cfg, theirs)
    assert len(optimizers[0].param_groups) == 2
    clipping = build_clipping(cfg)
    assert (clipping is None) == ("False" in clip)
    for _ in range(3):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        if clipping:
            clipping(list(ours.parameters()))
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


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


def test_averaged_weights_are_evaluated_and_saved(scenes, tmp_path):
    trainer = ema_trainer(tmp_path)
    step, trained, evaluated = trainer.run_step, [], []
    trainer.run_step = lambda: step() or trained.append(weight_of(trainer.model))
    trainer.test = lambda cfg, model: evaluated.append(model) or {}
    trainer.train()
    assert evaluated == [trainer.ema.model]
    expected = trained[0]
    for count, weight in enumerate(trained[1:], start=1):
        decay = (1 + count) / (10 + count)
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(weight_of(trainer.ema.model), expected)
    assert not torch.allclose(weight_of(trainer.model), expected)
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    torch.testing.assert_close(saved["model"][KEY], expected)
    torch.testing.assert_close(saved["training_model"][KEY], weight_of(trainer.model))


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


def test_average_can_start_in_a_resumed_run(scenes, tmp_path, package_log):
    plain = ema_trainer(tmp_path, "MODEL_EMA.ENABLED", "False")
    plain.train()
    resumed = ema_trainer(tmp_path, resume=True)
    assert "MODEL_EMA.ENABLED False, but it is True now" in package_log.text
    before = weight_of(plain.model)
    for model in resumed.model, resumed.ema.model:
        assert torch.equal(weight_of(model), before)
    with torch.no_grad():
        resumed.model.sem_seg_head.predictor.weight.add_(1)
    resumed.ema.after_step()
    torch.testing.assert_close(weight_of(resumed.ema.model), before + 1 - 5 / 14)


def test_resuming_without_the_average_continues_with_the_trained_weights(
    scenes, tmp_path, package_log
):
    averaged = ema_trainer(tmp_path)
    averaged.train()
    resumed = ema_trainer(tmp_path, "MODEL_EMA.ENABLED", "False", resume=True)
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
def test_changed_parameter_groups_are_refused_and_named(scenes, tmp_path, changed):
    trainer = make_trainer(tmp_path, "SOLVER.MAX_ITER", "2")
    trainer.train()
    cfg = trainer.cfg.clone()
    cfg.merge_from_list(changed)  # load_config would not freeze random weights
    with pytest.raises(ValueError, match="optimizer does not match this config") as error:
        Trainer(cfg).resume_or_load(resume=True)
    for key, value in zip(changed[::2], changed[1::2], strict=True):
        assert re.search(rf"{key} \S+ -> {value}", str(error.value)), str(error.value)


def test_estimated_size_of_a_checkpoint_is_its_file_size(scenes, tmp_path, monkeypatch):
    """The moving average is included, and shared memory counts once."""
    trainer = ema_trainer(tmp_path, "SOLVER.MAX_ITER", "1")
    trainer.train()
    size = (tmp_path / "model_final.pth").stat().st_size

    def limit(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))

    limit(1.1 * size)
    trainer.checkpointer.save("model_final", iteration=0)
    limit(0.9 * size)
    with pytest.raises(RunError, match="No space left on device; it needs"):
        trainer.checkpointer.save("model_final", iteration=0)


def test_precise_statistics_are_those_of_the_saved_model(scenes, tmp_path):
    trainer = ema_trainer(
        tmp_path, "TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2"
    )
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


def test_new_run_takes_weights_if_their_normalisation_matches(scenes, tmp_path):
    import timm

    from eseg_d2.modeling.backbone.efficientnet import in_zoo_form

    source = timm.create_model("efficientnet_b0")
    weights = tmp_path / "b0.pth"
    torch.save(in_zoo_form(source.state_dict(), "efficientnet_b0.ra_in1k"), weights)
    options = ["MODEL.WEIGHTS", str(weights)]
    with pytest.raises(ValueError, match="PIXEL_MEAN .110.0, 115.0, 115.0.*b0.pth were trained"):
        ema_trainer(tmp_path, *options)
    options += ["MODEL.PIXEL_MEAN", "[123.675, 116.28, 103.53]"]
    trainer = ema_trainer(tmp_path, *options, "MODEL.PIXEL_STD", "[58.395, 57.12, 57.375]")
    for model in trainer.model, trainer.ema.model:
        stem = model.backbone.bottom_up.network.conv_stem
        assert torch.equal(stem.weight, source.conv_stem.weight)
