"""RSP as a pyramid; what it shares with other backbones is tested in test_backbones.py."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_backbone

from eseg_d2.config import add_eseg_config
from eseg_d2.modeling.backbone.rsp_pyramid import RSPPyramid
from eseg_d2.modeling.sem_seg.rsp_head import RSPHead

OPTIONS = {"channels": 16, "num_heads": 4, "region_size": 3, "separable": False, "compile": False}
WIDTHS = {"a": 8, "b": 16, "c": 24}  # by feature; strides 4, 8 and 16


class BottomUp(Backbone):
    """Random features, the same ones for every image of a size."""

    def output_shape(self):
        return {
            name: ShapeSpec(channels=width, stride=4 * 2**i)
            for i, (name, width) in enumerate(WIDTHS.items())
        }

    def forward(self, x):
        rng = torch.Generator().manual_seed(0)
        return {
            name: torch.randn(
                len(x), s.channels, *(-(-n // s.stride) for n in x.shape[2:]), generator=rng
            )
            for name, s in self.output_shape().items()
        }


def pyramid(in_features=("c", "a", "b")):
    torch.manual_seed(0)
    return RSPPyramid(BottomUp(), [*in_features], norm="BN", **OPTIONS)


@pytest.mark.parametrize("size", [(64, 96), (37, 51)])
def test_equals_the_levels_of_an_rsp_head(size):
    model, x = pyramid().eval(), torch.zeros(2, 3, *size)
    head = RSPHead(model.bottom_up.output_shape(), num_classes=5, norm="BN", **OPTIONS).eval()
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("bottom_up.")}
    head.load_state_dict(weights, strict=False)
    with torch.no_grad():
        levels, logits = model(x), head.layers(model.bottom_up(x))
        torch.testing.assert_close(head.predictor(levels["p2"]), logits, rtol=0, atol=0)
    assert [*levels] == ["p2", "p3", "p4", "p5"]
    torch.testing.assert_close(levels["p5"], levels["p4"][:, :, ::2, ::2], rtol=0, atol=0)


@pytest.mark.parametrize("in_features", [("a",), (), ("a", "b", "d")])
def test_features_that_the_bottom_up_lacks_and_single_ones_are_refused(in_features):
    with pytest.raises(ValueError, match=r"IN_FEATURES is .* two or more .*'a', 'b', 'c'"):
        pyramid(in_features)


def test_strides_with_a_gap_are_refused():
    with pytest.raises(ValueError, match="'a': 4, 'c': 16.*consecutive powers of two"):
        pyramid(("a", "c"))


@pytest.mark.parametrize("name", ["build_rsp_backbone", "nothing"])
def test_bottom_up_that_is_not_registered_or_itself_is_refused(name):
    cfg = get_cfg()
    add_eseg_config(cfg)
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RSP_PYRAMID.BOTTOM_UP = "build_rsp_backbone", name
    with pytest.raises(ValueError, match=f"BOTTOM_UP is '{name}'.*build_bifpn_backbone"):
        build_backbone(cfg)
