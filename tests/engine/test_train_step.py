"""The training step: batches in parts, non-finite steps, mixed precision, clipping, schedule."""

import copy

import pytest
import torch
from detectron2.config import get_cfg
from runs import SMALL_MODEL, make_trainer
from torch import nn

from eseg_d2.engine import Trainer, load_config
from eseg_d2.engine.train_step import NotFiniteError, TrainStep, build_clipping, gradient_norm

CONFIG = "configs/scenes/rsp_semantic_R50.yaml"


def resumed_trainer(output, *overrides):
    options = ["SOLVER.WARMUP_ITERS", 0, *overrides]
    return make_trainer(output, *options, resume=True, world_size=1)


SCHEDULE = ("SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "(8,)")
SCHEDULE += ("SOLVER.MAX_ITER", 10)


def rate_of(trainer):
    return trainer.optimizer.param_groups[0]["lr"]


@pytest.fixture
def run(scenes, tmp_path):
    """Run 4 of 10 iterations, with a learning rate of 0.1 and a step at iteration 8."""
    trainer = resumed_trainer(tmp_path, *SCHEDULE, "SOLVER.CHECKPOINT_PERIOD", 4)
    trainer.max_iter = 5  # the tests continue from the checkpoint of iteration 3
    trainer.train()
    (tmp_path / "model_final.pth").unlink()
    return tmp_path


def test_resumed_run_takes_solver_values_from_its_config(run, caplog):
    same = resumed_trainer(run, *SCHEDULE)
    assert (same.start_iter, rate_of(same)) == (4, pytest.approx(0.1))
    changes = ("SOLVER.BASE_LR", 0.02, "SOLVER.WEIGHT_DECAY", 0.5, "SOLVER.MOMENTUM", 0.3)
    changed = resumed_trainer(run, *SCHEDULE, *changes)
    assert rate_of(changed) == pytest.approx(0.02)
    assert changed.optimizer.param_groups[0]["weight_decay"] == 0.5
    assert changed.optimizer.param_groups[0]["momentum"] == 0.3
    assert any("momentum_buffer" in state for state in changed.optimizer.state.values())
    changed.train()
    assert rate_of(changed) == pytest.approx(0.002)


def test_other_number_of_processes_scales_the_schedule(run):
    """The run had 2 processes with 2 images per update; one process alone has 1 image."""
    scaled = resumed_trainer(run, *SCHEDULE, "SOLVER.REFERENCE_WORLD_SIZE", 2)
    assert scaled.cfg.SOLVER.IMS_PER_BATCH == 1
    assert (scaled.start_iter, scaled.max_iter) == (8, 20)
    assert rate_of(scaled) == pytest.approx(0.05)
    before = scaled._data_state["position"]
    scaled.train()
    assert rate_of(scaled) == pytest.approx(0.005)
    state = scaled.state_dict()["data"]["order"]
    assert state["position"] >= before + 12


def test_checkpoint_beyond_max_iter_resumes_with_any_schedule(run):
    for name in "WarmupPolyLR", "WarmupCosineLR", "WarmupMultiStepLR":
        options = ("SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.STEPS", "()", "SOLVER.MAX_ITER", 2)
        assert resumed_trainer(run, *options).start_iter == 4


def test_schedule_extends_to_a_larger_max_iter(scenes, tmp_path):
    polynomial = ("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR")
    resumed_trainer(tmp_path, *polynomial, "SOLVER.MAX_ITER", 2).train()
    longer = resumed_trainer(tmp_path, *polynomial, "SOLVER.MAX_ITER", 5)
    cfg = longer.cfg.SOLVER
    assert rate_of(longer) == pytest.approx(cfg.BASE_LR * 0.6**cfg.POLY_LR_POWER)
    longer.train()
    assert longer.iter == 5


def test_config_that_was_not_scaled_is_refused(root, scenes):
    cfg = load_config(str(root / CONFIG), ["SOLVER.REFERENCE_WORLD_SIZE", "2"])
    with pytest.raises(ValueError, match="REFERENCE_WORLD_SIZE is 2, but .*world_size=1"):
        Trainer(cfg)


NO_NORMS = (
    *("MODEL.RESNETS.NORM", "", "MODEL.BIFPN.NORM", "", "MODEL.RSP_HEAD.NORM", ""),
    *("MODEL.DEVICE", "cpu"),
)


def step_of(model, lr=0.1, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return TrainStep(model, optimizer, device=torch.device("cpu"), **options)


def sample(ignored, seed):
    """Return a sample of which a share of the pixels is not labelled."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 19, (64, 64), generator=generator)
    labels[: int(64 * ignored)] = 255
    image = torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
    return {"image": image, "sem_seg": labels, "file_name": f"{seed}.png"}


@pytest.mark.parametrize("kind", ["RSPHead", "ESegHead"])
def test_batch_in_parts_gives_the_update_of_the_whole(root, kind):
    """Some images have few labelled pixels, or none."""
    path = str(root / "configs/scenes/rsp_semantic_R50.yaml")
    options = [*SMALL_MODEL, *NO_NORMS, "MODEL.SEM_SEG_HEAD.NAME", kind, "MODEL.ESEG_HEAD.NORM", ""]
    whole = Trainer.build_model(load_config(path, options))
    parts = copy.deepcopy(whole)
    batch = [sample(0.0, 1), sample(0.9, 2), sample(1.0, 3), sample(0.3, 4)]
    expected = step_of(whole).run([batch])
    got = step_of(parts).run([batch[:2], batch[2:]])
    assert got == pytest.approx(expected, rel=1e-4)
    for ours, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


class Toy(nn.Module):
    """A model whose loss or gradient is not finite for some samples."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.norm = nn.BatchNorm1d(3)

    def forward(self, samples):
        x = self.norm(torch.stack([s["x"] for s in samples]) * self.weight)
        loss = x.square().mean()
        if any(s.get("gradient") for s in samples):
            loss = loss + (self.weight.sum() * 0.0).sqrt()  # 0, with an infinite slope
        return {"loss_a": loss, "loss_b": 2 * loss}


def toy_batch(**options):
    return [{"x": torch.tensor([1.0, 2.0, 3.0])}, {"x": torch.tensor([2.0, 5.0, 1.0]), **options}]


@pytest.mark.parametrize(
    "bad", [{"x": torch.tensor([float("nan")] * 3)}, {"gradient": True}], ids=["loss", "gradient"]
)
def test_step_that_is_not_finite_changes_nothing(bad):
    model = Toy()
    step = step_of(model, can_skip=True)
    step.run([toy_batch()])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NotFiniteError, match="nan|inf") as error:
        step.run([toy_batch(), toy_batch(**bad)])
    assert error.value.metrics
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    figures = step.run([toy_batch()])
    assert figures["total_loss"] == pytest.approx(figures["loss_a"] + figures["loss_b"])
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_gradient_norm_is_measured_before_clipping():
    step = step_of(Toy(), clipping=lambda parameters: [p.grad.zero_() for p in parameters])
    before = copy.deepcopy(step.model.state_dict())
    assert step.run([toy_batch()])["grad_norm"] > 0
    assert torch.equal(step.model.weight, before["weight"])


@pytest.mark.parametrize("config", ["rsp_semantic_R50", "rsp_panoptic_R18_cityscapes", "eseg_s"])
def test_mixed_precision_trains_on_a_cpu(scenes, tmp_path, config):
    options = ["SOLVER.AMP.ENABLED", True, "SOLVER.MAX_ITER", 3, "INPUT.MIN_SIZE_TRAIN", "(64, 64)"]
    options += ["INPUT.CROP.SIZE", "(64, 64)", "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
    trainer = make_trainer(tmp_path, *options, config=config)
    dtypes = set()
    trainer.model.backbone.register_forward_hook(
        lambda module, given, features: dtypes.update(f.dtype for f in features.values())
    )
    trainer.train()
    assert torch.bfloat16 in dtypes
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert 0 < trainer.storage.latest()["total_loss"][0] < 100


def test_full_model_clipping_bounds_the_norm_of_all_gradients():
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = True, 2.0
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    parameters = [nn.Parameter(torch.zeros(n)) for n in (3, 5)]
    for p in parameters:
        p.grad = torch.full_like(p, 10.0)
    build_clipping(cfg)(parameters)
    assert float(gradient_norm(parameters)) == pytest.approx(2.0, rel=1e-4)
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "all"
    with pytest.raises(ValueError, match="CLIP_TYPE.*full_model"):
        build_clipping(cfg)
