"""The BiFPN: against effdet, on any levels, sizes and norms, exported, and from a config."""

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone
from effdet.config.model_config import default_detection_model_configs
from effdet.efficientdet import BiFpn
from torch import nn

import eseg_d2.modeling.backbone.bifpn as bifpn
from eseg_d2.config import add_eseg_config
from eseg_d2.modeling.backbone.bifpn import BiFPN

LEVEL_PAIRS = [(low, high) for low in range(2, 9) for high in range(low + 1, 10)]


class PassThrough(Backbone):
    """A backbone whose input is the dict of features that it returns."""

    def __init__(self, channels, min_level):
        super().__init__()
        self._out_features = [f"f{min_level + i}" for i in range(len(channels))]
        self._out_feature_channels = dict(zip(self._out_features, channels, strict=True))
        self._out_feature_strides = {name: 2 ** int(name[1:]) for name in self._out_features}

    def forward(self, x):
        return x


class Stages(Backbone):
    """A backbone of convolutions with stride 2, with levels 2 to 5 whose sizes round up or down."""

    size_divisibility = 64
    padding_constraints = {"square_size": 640}

    def __init__(self, *, round_up):
        super().__init__()
        halving = {"kernel_size": 3, "padding": 1} if round_up else {"kernel_size": 2}
        self.stem = nn.Conv2d(3, 4, stride=2, **halving)
        self.stages = nn.ModuleList(nn.Conv2d(i, i + 1, stride=2, **halving) for i in range(4, 8))

    def output_shape(self):
        return {f"s{i}": ShapeSpec(channels=i + 3, stride=2**i) for i in (5, 2, 4, 3)}

    def forward(self, x):
        features = [self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return {f"s{i + 1}": features[i] for i in range(1, 5)}


def make_bifpn_on_stages(*, round_up, **options):
    return BiFPN(
        bottom_up=Stages(round_up=round_up),
        in_features=["s2", "s3", "s4", "s5"],
        min_level=2,
        max_level=9,
        out_channels=4,
        **options,
    )


def random_features(sizes, channels, min_level, dtype=torch.float32):
    pairs = enumerate(zip(sizes, channels, strict=False), min_level)
    return {f"f{level}": torch.randn(2, c, *size, dtype=dtype) for level, (size, c) in pairs}


def make_bifpn(channels=(5, 6, 7), min_level=3, max_level=9, **options):
    bottom_up = PassThrough(channels, min_level)
    options = {"in_features": bottom_up._out_features, "out_channels": 4, **options}
    return BiFPN(bottom_up=bottom_up, min_level=min_level, max_level=max_level, **options)


def count_parameters(module):
    return sum(p.numel() for p in module.parameters())


def level_sizes(image_size, levels):
    return [tuple(math.ceil(n / 2**level) for n in image_size) for level in levels]


def make_cfg(**options):
    """Return the config of a BiFPN on a narrow ResNet-50, 8 to 64 channels wide."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_bifpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 2
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    add_eseg_config(cfg)
    cfg.MODEL.BIFPN.OUT_CHANNELS = 16
    cfg.MODEL.BIFPN.NUM_REPEATS = 2
    cfg.MODEL.BIFPN.update(options)
    return cfg


# --- Against an independent implementation


def copy_conv_norm(source, target):
    """Copy effdet's ConvBnAct2d or SeparableConv2d into a ConvNorm."""
    if hasattr(source, "conv_dw"):
        target.conv.depthwise.load_state_dict(source.conv_dw.state_dict())
        target.conv.pointwise.load_state_dict(source.conv_pw.state_dict())
    else:
        target.conv.load_state_dict(source.conv.state_dict())
    target.norm.load_state_dict(source.bn.state_dict())


def copy_from_effdet(source, target):
    """Copy the weights of an effdet BiFpn into a BiFPN."""
    for resample, extra in zip(source.resample.values(), target.extra_levels.values(), strict=True):
        if hasattr(resample, "conv"):
            copy_conv_norm(resample.conv, extra[0])
    for cell, layer in zip(source.cell, target.repeats, strict=True):
        for theirs, ours in zip(cell.fnode, [*layer.top_down, *layer.bottom_up], strict=True):
            if ours.fusion.weight is not None:
                ours.fusion.weight.data.copy_(theirs.combine.edge_weights)
            resamples = theirs.combine.resample.values()
            for resample, edge in zip(resamples, ours.edges, strict=True):
                if hasattr(resample, "conv"):
                    copy_conv_norm(resample.conv, edge.lateral)
            copy_conv_norm(theirs.after_combine.conv, ours.conv)


def make_effdet(channels, levels, image_size, width, repeats, **options):
    config = default_detection_model_configs()
    config.min_level, config.max_level = levels
    config.num_levels = levels[1] - levels[0] + 1
    config.image_size, config.fpn_channels = image_size, width
    config.fpn_cell_repeats = repeats
    config.update(options)
    return BiFpn(config, [{"num_chs": c, "reduction": 0} for c in channels])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "channels, levels, image_size, ours, theirs",
    [
        ((6, 7, 9), (3, 7), (200, 328), {}, {}),
        ((6, 7, 9), (3, 9), (1030, 600), {}, {}),
        ((5, 6, 8, 9), (2, 6), (160, 260), {}, {}),  # res4 is as wide as the pyramid
        ((6, 7, 9), (3, 5), (65, 130), {}, {}),
        ((6, 7, 9), (3, 7), (256, 384), {"downsample": "max_pool_same"}, {"pad_type": "same"}),
        ((6, 7, 9), (3, 7), (256, 384), {"fusion": "sum"}, {"fpn_name": "bifpn_sum"}),
        ((6, 7, 9), (3, 7), (256, 384), {"separable": False}, {"separable_conv": False}),
        ((6, 7, 9), (3, 7), (256, 384), {"activation": "relu"}, {"act_type": "relu"}),
    ],
)
def test_outputs_equal_those_of_effdet(channels, levels, image_size, ours, theirs, training):
    torch.manual_seed(0)
    theirs = make_effdet(channels, levels, image_size, 8, 3, **{"pad_type": "", **theirs}).double()
    ours = make_bifpn(channels, *levels, out_channels=8, num_repeats=3, extra_levels="pool", **ours)
    ours = ours.double()
    for tensor in [*theirs.parameters(), *theirs.buffers()]:
        if tensor.is_floating_point():
            if tensor.dim() == 1:
                nn.init.uniform_(tensor, 0.2, 1.5)
            else:
                nn.init.kaiming_uniform_(tensor, a=1)
    copy_from_effdet(theirs, ours)
    assert count_parameters(ours) == count_parameters(theirs)
    ours.train(training)
    theirs.train(training)
    sizes = level_sizes(image_size, range(levels[0], levels[0] + len(channels)))
    features = random_features(sizes, channels, levels[0], torch.float64)
    expected = theirs([x.clone() for x in features.values()])
    got = list(ours(features).values())
    assert len(got) == len(expected) == levels[1] - levels[0] + 1
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    if training:
        for layer, cell in zip(ours.repeats, theirs.cell, strict=True):
            a, b = layer.bottom_up[-1].conv.norm, cell.fnode[-1].after_combine.conv.bn
            torch.testing.assert_close(a.running_var, b.running_var)


# --- Levels and parameters


@pytest.mark.parametrize("levels", LEVEL_PAIRS)
@pytest.mark.parametrize("extra_levels", ["pool", "pool_conv"])
def test_shapes_for_every_pair_of_levels(levels, extra_levels):
    low, high = levels
    for num_given in range(1, min(4, high - low + 1) + 1):
        channels = [5 + i for i in range(num_given)]
        model = make_bifpn(channels, low, high, num_repeats=2, extra_levels=extra_levels)
        sizes = level_sizes((300, 1000), range(low, high + 1))
        with torch.no_grad():
            out = model(random_features(sizes, channels, low))
        assert list(out) == [f"p{level}" for level in range(low, high + 1)]
        assert [x.shape for x in out.values()] == [(2, 4, *size) for size in sizes]
        shapes = model.output_shape()
        assert [*shapes] == [*out]
        assert [(s.channels, s.stride) for s in shapes.values()] == [
            (4, 2**level) for level in range(low, high + 1)
        ]


def test_convolutions_of_the_extra_levels_are_those_of_the_option():
    """The comparison with effdet counts the other parameters."""
    pool, pool_conv = (make_bifpn(extra_levels=name) for name in ("pool", "pool_conv"))
    conv_and_norm = 4 * 4 + 4 + 2 * 4
    assert count_parameters(pool_conv) - count_parameters(pool) == 3 * conv_and_norm  # P7 .. P9
    with pytest.raises(ValueError, match="extra_levels is 'conv'; expected one of"):
        make_bifpn(extra_levels="conv")


def test_features_may_come_in_any_order():
    model = make_bifpn(in_features=["f5", "f3", "f4"])
    assert model.in_features == ["f3", "f4", "f5"]


def test_first_extra_level_is_pooled_before_its_convolution():
    model = make_bifpn((5, 6, 4), max_level=7)
    assert isinstance(model.extra_levels["p6"][0], nn.MaxPool2d)
    assert model.extra_levels["p6"][1].conv.in_channels == 4


# --- Sizes, norms, gradients


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "GN", "FrozenBN", ""])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (65, 130), (32, 600)])
def test_every_norm_trains_with_one_image_of_any_size(norm, size):
    torch.manual_seed(0)
    model = build_backbone(make_cfg(NORM=norm, OUT_CHANNELS=64)).train()
    out = model(torch.randn(1, 3, *size))
    assert [tuple(x.shape[-2:]) for x in out.values()] == level_sizes(size, range(3, 10))
    sum((x * torch.randn_like(x)).sum() for x in out.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert all(x.isfinite().all() for x in model.eval()(torch.randn(1, 3, *size)).values())


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    model = make_bifpn(num_repeats=3, norm="")
    features = random_features(level_sizes((300, 200), (3, 4, 5)), (5, 6, 7), 3)
    sum((x * torch.randn_like(x)).sum() for x in model(features).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_norms_are_those_of_the_options():
    def norms(name, **options):
        model = make_bifpn(norm=name, out_channels=64, **options)
        kinds = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, FrozenBatchNorm2d)
        return [m for m in model.modules() if isinstance(m, kinds)]

    count = len(norms("BN"))
    modules = {"BN": nn.BatchNorm2d, "SyncBN": nn.SyncBatchNorm}
    modules |= {"GN": nn.GroupNorm, "FrozenBN": FrozenBatchNorm2d}
    for name, module in modules.items():
        assert [type(m) for m in norms(name)] == [module] * count
    assert norms("") == []
    assert {(m.momentum, m.eps) for m in norms("BN")} == {(0.01, 1e-3)}
    changed = norms("BN", norm_momentum=0.1, norm_eps=1e-5)
    assert {(m.momentum, m.eps) for m in changed} == {(0.1, 1e-5)}


@pytest.mark.parametrize("round_up, rounded", [(True, math.ceil), (False, math.floor)])
@pytest.mark.parametrize("size", [(32, 32), (47, 63), (65, 130)])
def test_levels_of_another_bottom_up_are_kept(round_up, rounded, size):
    out = make_bifpn_on_stages(round_up=round_up)(torch.randn(2, 3, *size))
    expected = [tuple(rounded(n / 2**level) for n in size) for level in range(2, 6)]
    assert [tuple(x.shape[-2:]) for x in out.values()][:4] == expected
    assert len(out) == 8


def test_padding_needs_of_the_bottom_up_are_passed_on():
    model = make_bifpn_on_stages(round_up=True)
    assert model.size_divisibility == 64
    assert model.padding_constraints == {"square_size": 640}
    on_a_resnet = build_backbone(make_cfg())
    assert on_a_resnet.size_divisibility == 32  # that of its last feature
    assert on_a_resnet.padding_constraints == {}


# --- Tracing, export, mixed precision


@pytest.mark.parametrize("downsample", ["max_pool", "max_pool_same"])
@torch.no_grad()
def test_traced_model_runs_at_other_sizes(downsample):
    model = make_bifpn_on_stages(round_up=True, downsample=downsample).eval()
    traced = torch.jit.trace(model, torch.randn(1, 3, 64, 64), strict=False)
    x = torch.randn(2, 3, 71, 130)
    for name, expected in model(x).items():
        torch.testing.assert_close(traced(x)[name], expected)


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="it exports odd or even sizes only, not both"
)
@pytest.mark.parametrize("downsample", ["max_pool", "max_pool_same"])
@torch.no_grad()
def test_exports_with_dynamic_sizes(downsample):
    model = make_bifpn_on_stages(round_up=True, downsample=downsample).eval()
    # Above 512 pixels P9 has at least 2 x 2 cells: torch.export takes a size of 1 for a constant.
    sizes = {i: torch.export.Dim(name, min=513, max=4096) for i, name in ((2, "H"), (3, "W"))}
    image = torch.randn(1, 3, 640, 800)
    exported = torch.export.export(model, (image,), dynamic_shapes=(sizes,)).module()
    x = torch.randn(1, 3, 600, 1027)
    for name, expected in model(x).items():
        torch.testing.assert_close(exported(x)[name], expected)


@pytest.mark.parametrize("training", [False, True])
def test_autocast_gives_finite_bfloat16_features(training):
    torch.manual_seed(0)
    model = build_backbone(make_cfg()).train(training)
    x = torch.randn(1, 3, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    assert all(v.dtype == torch.bfloat16 and v.isfinite().all() for v in out.values())


# --- The config


def test_backbone_is_registered_and_built_from_a_config():
    model = build_backbone(make_cfg(FUSION="sum", MAX_LEVEL=7, ACTIVATION="relu"))
    assert BACKBONE_REGISTRY.get("build_bifpn_backbone") is bifpn.build_bifpn_backbone
    assert [*model.output_shape()] == ["p3", "p4", "p5", "p6", "p7"]
    assert len(model.repeats) == 2
    node = model.repeats[0].top_down[0]
    assert node.fusion.weight is None
    assert isinstance(node.activation, nn.ReLU)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"BOTTOM_UP": "build_vgg"}, "BOTTOM_UP is 'build_vgg'.*build_resnet_backbone"),
        ({"BOTTOM_UP": "build_bifpn_backbone"}, "a backbone without a pyramid"),
        ({"IN_FEATURES": ["res3", "res6"]}, r"gives \['res2', .*MODEL.RESNETS.OUT_FEATURES"),
        ({"IN_FEATURES": []}, r"IN_FEATURES is \[\]; the bottom-up gives"),
        ({"IN_FEATURES": ["res3", "res5"]}, r"strides \[8, 32\]; .* \[8, 16, 32,"),
        ({"IN_FEATURES": ["res3", "res3"]}, r"strides \[8, 8\]"),
        ({"MIN_LEVEL": 2}, r"strides \[8, 16, 32\]; MIN_LEVEL 2 .* \[4, 8,"),
        ({"MIN_LEVEL": 4}, r"strides \[8, 16, 32\]; MIN_LEVEL 4"),
        ({"MAX_LEVEL": 4}, r"strides \[8, 16, 32\]; .* MAX_LEVEL 4 .* \[8, 16\]"),
        ({"MAX_LEVEL": 3}, "are 3, 3; expected 2 <= MIN_LEVEL < MAX_LEVEL <= 9"),
        ({"MAX_LEVEL": 10}, "are 3, 10; expected"),
        ({"MIN_LEVEL": 1}, "are 1, 9; expected"),
        ({"NUM_REPEATS": 0}, "NUM_REPEATS is 0; expected >= 1"),
        ({"NORM": "LN"}, "NORM is 'LN'; expected 'BN', 'SyncBN'"),
        ({"NORM": "GN", "OUT_CHANNELS": 32}, "'GN' with MODEL.BIFPN.OUT_CHANNELS 32"),
        ({"NORM": "GN", "OUT_CHANNELS": 88}, "take 64 channels or another multiple of 32"),
        ({"FUSION": "softmax"}, "fusion is 'softmax'; expected one of"),
        ({"ACTIVATION": "gelu"}, "activation is 'gelu'; expected one of .*swish"),
    ],
)
def test_invalid_configs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(make_cfg(**options))
