"""Folding batch norms and fusion weights into convolutions."""

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch.nn.modules.batchnorm import _BatchNorm

from eseg_d2.engine import load_config
from eseg_d2.layers.fusion import FusionNode, WeightedFusion
from eseg_d2.modeling.fuse import fuse_conv_norm
from eseg_d2.modeling.sem_seg.rsp import RSE, RSP

NAMES = ("eseg_s", "eseg_lite_s", "rsp_semantic_R50", "semantic_fpn_R50", "deeplab_v3_R50")


def disturb_norms(model):
    """Randomise norms and fusion weights, whose initial values would hide many mistakes."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (_BatchNorm, FrozenBatchNorm2d)):
            for name, low, high in (
                *(("running_mean", -0.2, 0.2), ("running_var", 0.5, 1.5)),
                *(("weight", 0.5, 1.5), ("bias", -0.2, 0.2)),
            ):
                tensor = getattr(module, name).data
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
        elif isinstance(module, WeightedFusion) and module.weight is not None:
            weight = module.weight.data
            weight.copy_(
                torch.rand(weight.shape, generator=generator) - 0.1
            )  # some are negative, which switches them off


@pytest.mark.parametrize("name", NAMES)
def test_folded_model_has_no_norms_and_equals_the_model(root, name):
    path = str(root / "configs" / "cityscapes" / f"{name}.yaml")
    model = build_model(load_config(path, ["MODEL.DEVICE", "cpu"])).double().eval()
    disturb_norms(model)
    fused = fuse_conv_norm(model)
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected, ours = (m.sem_seg_head(m.backbone(x))[0] for m in (model, fused))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)

    def norms(m):
        return sum(isinstance(x, (_BatchNorm, FrozenBatchNorm2d)) for x in m.modules())

    assert norms(fused) == 0
    fusions = [m for m in fused.modules() if isinstance(m, WeightedFusion)]
    assert all(fusion.weight is None for fusion in fusions)
    assert bool(fusions) == name.startswith(("eseg", "rsp"))
    assert any(p.requires_grad for p in model.parameters())


def test_group_norms_and_sums_are_kept():
    rsp = RSP(RSE(32), channels=32, norm="GN").eval()
    low, high = torch.randn(1, 32, 6, 8), torch.randn(1, 32, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(fuse_conv_norm(rsp)(low, high), rsp(low, high))
    node = FusionNode(
        edges=[(4, 0), (8, 1)],
        out_channels=4,
        norm=torch.nn.BatchNorm2d,
        fusion="sum",
        activation="swish",
        separable=True,
        downsample="max_pool",
    ).eval()
    disturb_norms(node)
    maps = torch.randn(1, 4, 6, 8), torch.randn(1, 8, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(fuse_conv_norm(node)(maps), node(maps))


def test_training_mode_is_refused():
    conv = Conv2d(2, 2, 1, norm=torch.nn.BatchNorm2d(2))
    with pytest.raises(ValueError, match="training mode"):
        fuse_conv_norm(conv.train())
