"""Gradient checkpointing against plain training, and the TF32 setting."""

import copy

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch.nn.modules.batchnorm import _BatchNorm

from eseg_d2.engine import Trainer, load_config
from eseg_d2.modeling.gpu import checkpoint_gradients, set_precision


class Kept:
    """Count the bytes that autograd keeps for the backward pass, without the parameters."""

    def __init__(self, model):
        self.weights = {p.data_ptr() for p in model.parameters()}
        self.bytes = 0

    def pack(self, x):
        if x.data_ptr() not in self.weights:
            self.bytes += x.nbytes
        return x


def step(model, x, targets):
    """Return (loss, gradients, buffers, bytes kept) of one training step."""
    torch.manual_seed(0)  # drop path is random
    kept = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda x: x):
        _, losses = model.sem_seg_head(model.backbone(x), targets)
        loss = sum(losses.values())
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return loss.detach(), gradients, dict(model.named_buffers()), kept.bytes


@pytest.mark.parametrize(
    "config, parts",
    [
        ("scenes/eseg_lite_s", ("backbone",)),
        ("scenes/rsp_panoptic_R50_cityscapes", ("bifpn",)),
        ("scenes/rsp_panoptic_R50_cityscapes", ("backbone", "bifpn")),
    ],
)
def test_checkpointing_keeps_less_and_gives_the_same_gradients_and_statistics(root, config, parts):
    overrides = ["MODEL.DEVICE", "cpu", "MODEL.EFFICIENTNET.DROP_PATH_RATE", "0.2"]
    torch.manual_seed(0)
    model = build_model(load_config(str(root / "configs" / f"{config}.yaml"), overrides))
    plain = model.double().train()
    saving = copy.deepcopy(plain)
    switches = {part: part in parts for part in ("backbone", "bifpn")}
    checkpoint_gradients(saving, **switches)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    targets = torch.randint(19, (2, 64, 64))
    loss, gradients, buffers, kept = step(plain, x, targets)
    other = step(saving, x, targets)
    assert other[0] == loss
    assert other[3] < 0.9 * kept
    torch.testing.assert_close(other[1], gradients, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(other[2], buffers, rtol=0, atol=0)
    assert any(x.num_batches_tracked == 1 for x in saving.modules() if isinstance(x, _BatchNorm))


def test_copy_computes_with_its_own_weights(root):
    path = str(root / "configs/scenes/eseg_lite_s.yaml")
    overrides = ["MODEL.GRADIENT_CHECKPOINTING.BACKBONE", "True", "MODEL.DEVICE", "cpu"]
    cfg = load_config(path, [*overrides, "MODEL.GRADIENT_CHECKPOINTING.BIFPN", "True"])
    model = Trainer.build_model(cfg).eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        x = torch.randn(1, 3, 64, 64)
        assert not any(feature.any() for feature in twin.backbone(x).values())
        assert all(feature.any() for feature in model.backbone(x).values())
    twin.train()
    sum(feature.sum() for feature in twin.backbone(x).values()).backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.fixture
def switches():
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    yield switches
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_set_as_configured(tf32, switches):
    for switch in switches:
        switch.allow_tf32 = not tf32
    set_precision(CfgNode({"MODEL": {"TF32": tf32}}))
    assert [switch.allow_tf32 for switch in switches] == [tf32, tf32]
