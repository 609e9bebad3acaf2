"""EfficientNets of timm as backbones, and their weights: random ones instead of downloads."""

import logging
import math
from pathlib import Path

import pytest
import timm
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from torch import nn

import eseg_d2
from eseg_d2.config import load_config
from eseg_d2.engine import fetch_weights
from eseg_d2.engine.checkpoint import SafeCheckpointer
from eseg_d2.engine.weights import check_normalization
from eseg_d2.export.convert_weights import convert_weights
from eseg_d2.modeling.backbone.efficientnet import EfficientNet, in_zoo_form
from eseg_d2.utils.weights_file import read_weights_file

RES = ["res2", "res3", "res4", "res5"]
NAMES = ("efficientnet_b0", "efficientnet_lite0", "tf_efficientnet_b1", "tf_efficientnetv2_b0")


@pytest.mark.parametrize("name", NAMES)
def test_every_family_has_features_of_the_declared_shapes(name):
    backbone = EfficientNet(name, out_features=["res1", *RES]).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 65, 97))
    shapes = backbone.output_shape()
    assert [s.stride for s in shapes.values()] == [2, 4, 8, 16, 32]
    for feature, shape in shapes.items():
        h, w = (math.ceil(x / shape.stride) for x in (65, 97))
        assert features[feature].shape == (1, shape.channels, h, w)


def test_features_equal_those_of_timm():
    backbone = EfficientNet("efficientnet_b0", out_features=["res3", "res5"]).eval()
    reference = timm.create_model("efficientnet_b0", features_only=True, out_indices=(2, 4)).eval()
    reference.load_state_dict(backbone.network.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(backbone(x).values(), reference(x), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_lite_options_replace_activation_and_squeeze_excite():
    lite = EfficientNet(
        "efficientnet_b0", out_features=RES, squeeze_excite=False, activation="relu"
    )
    kinds = {type(m).__name__ for m in lite.modules()}
    assert "SqueezeExcite" not in kinds and "SiLU" not in kinds and "ReLU" in kinds
    full = {type(m).__name__ for m in EfficientNet("efficientnet_b0", out_features=RES).modules()}
    assert "SqueezeExcite" in full and "SiLU" in full


@pytest.mark.parametrize("freeze_at, frozen", [(0, 0), (1, 0), (2, 2), (4, 5), (5, 7)])
def test_freeze_at_freezes_stem_and_stages(freeze_at, frozen):
    backbone = EfficientNet("efficientnet_b0", out_features=RES, freeze_at=freeze_at).train()
    stem = backbone.network.bn1
    assert stem.weight.requires_grad == stem.training == (freeze_at == 0)
    for number, stage in enumerate(backbone.network.blocks):
        norms = [m for m in stage.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            assert norm.training == norm.weight.requires_grad == (number >= frozen)


def test_drop_path_is_random_in_training_only():
    backbone = EfficientNet("efficientnet_b0", out_features=["res5"], drop_path_rate=0.9)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for norm in backbone.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 0.0
        first, second = (backbone.train()(x)["res5"] for _ in range(2))
        assert not torch.equal(first, second)
        torch.testing.assert_close(*(backbone.eval()(x)["res5"] for _ in range(2)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "resnet18"}, "NAME is 'resnet18'"),
        ({"name": "efficientnet_b99"}, "NAME is 'efficientnet_b99'"),
        (
            {"name": "efficientnet_b1.ft_in1k"},
            "such as 'efficientnet_b1'.*WEIGHTS 'timm://efficientnet_b1.ft_in1k'",
        ),
        ({"out_features": ["p3"]}, "OUT_FEATURES is .'p3'."),
        ({"out_features": []}, "OUT_FEATURES is"),
        ({"activation": "tanh"}, "ACTIVATION is 'tanh'"),
        ({"norm": "GN"}, "NORM is 'GN'"),
        ({"freeze_at": 6}, "FREEZE_AT is 6"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EfficientNet(**{"name": "efficientnet_b0", "out_features": RES, **options})


CONFIGS = Path(__file__).resolve().parents[3] / "configs"
PRETRAINED = [
    *sorted((CONFIGS / "cityscapes").glob("eseg_*.yaml")),
    CONFIGS / "Base-ESeg-Semantic.yaml",
]
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
HALF = [127.5] * 3


@pytest.fixture(autouse=True)
def downloads(monkeypatch, tmp_path):
    """Replace timm's downloads by random weights; return the list of requested names."""
    asked, create_model = [], timm.create_model

    def create(name, pretrained=False, **options):
        if pretrained:
            asked.append(name)
        return create_model(name, **options)

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return asked


class Model(nn.Module):
    """A model with a backbone under the name it has in the project's models."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.bottom_up = backbone


def config(mean, std, image_format="RGB"):
    cfg = get_cfg()
    eseg_d2.add_eseg_config(cfg)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = mean, std
    cfg.INPUT.FORMAT = image_format
    return cfg


def summary_of(backbone, weights):
    return SafeCheckpointer(Model(backbone)).load_weights(weights)


def assert_loaded(backbone, expected):
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("path", PRETRAINED, ids=lambda p: p.name)
def test_configs_name_tagged_weights_of_their_network_and_their_normalisation(path, downloads):
    cfg = load_config(str(path))
    name = cfg.MODEL.WEIGHTS.removeprefix("timm://")
    assert timm.is_model_pretrained(name) and "jft" not in name
    assert name.split(".")[0] == cfg.MODEL.EFFICIENTNET.NAME and "." in name
    content = in_zoo_form({}, name)
    check_normalization(content, cfg.MODEL.WEIGHTS, cfg)


def test_weights_are_downloaded_once_and_cached(downloads, tmp_path):
    weights = "timm://efficientnet_b0.ra_in1k"
    file = fetch_weights(weights)
    assert file == str(tmp_path / "cache/timm/efficientnet_b0.ra_in1k.pth")
    assert fetch_weights(weights) == fetch_weights("timm://efficientnet_b0") == file
    assert downloads == ["efficientnet_b0.ra_in1k"]


@pytest.mark.parametrize("checkpointer", [SafeCheckpointer, DetectionCheckpointer])
def test_weights_are_loaded_by_our_checkpointer_and_detectron2s(checkpointer):
    weights = "timm://efficientnet_b0.ra_in1k"
    expected = read_weights_file(fetch_weights(weights))["model"]
    for wrap in (lambda backbone: backbone), Model:
        backbone = EfficientNet("efficientnet_b0", out_features=["res3", "res5"], norm="SyncBN")
        model = checkpointer(wrap(backbone))
        getattr(model, "load_weights", model.load)(weights)
        assert_loaded(backbone, expected)


def test_rounded_normalisation_is_accepted():
    content = in_zoo_form({}, "efficientnet_b1.ft_in1k")
    check_normalization(content, "b1", config([124, 116, 104], [58, 57, 57]))


@pytest.mark.parametrize(
    "name, mean, std, image_format",
    [
        ("efficientnet_b1.ra4_e3600_r240_in1k", MEAN, STD, "RGB"),
        ("efficientnet_b1.ft_in1k", HALF, HALF, "RGB"),
        ("efficientnet_b1.ft_in1k", MEAN, STD, "BGR"),
        ("efficientnet_b1.ft_in1k", MEAN, [1.0, 1.0, 1.0], "RGB"),
        ("efficientnet_b1.ft_in1k", [116.0], [57.0], "RGB"),
    ],
)
def test_another_normalisation_is_refused(name, mean, std, image_format):
    cfg = config(mean, std, image_format)
    with pytest.raises(ValueError, match="MODEL.PIXEL_MEAN .* are not those") as error:
        check_normalization(in_zoo_form({}, name), f"timm://{name}", cfg)
    message = str(error.value)
    assert str(mean) in message and str(std) in message and f"timm://{name}" in message
    settings = message.partition("  Set ")[2].partition(", or")[0]  # the suggested settings
    words = settings.replace('"', "").replace(" [", "|[").replace("] ", "]|").split("|")
    cfg.merge_from_list(words)
    check_normalization(in_zoo_form({}, name), name, cfg)


def test_weights_are_not_loaded_with_another_normalisation():
    model = Model(EfficientNet("efficientnet_b0", out_features=["res5"]))
    before = model.backbone.bottom_up.network.conv_stem.weight.clone()
    checkpointer = SafeCheckpointer(model)
    with pytest.raises(ValueError, match="not those that the weights of timm://eff.*b0.ra_in1k"):
        checkpointer.load_weights("timm://efficientnet_b0.ra_in1k", config(HALF, HALF))
    assert torch.equal(model.backbone.bottom_up.network.conv_stem.weight, before)
    assert checkpointer.load_weights("timm://efficientnet_b0.ra_in1k", config(MEAN, STD))


@pytest.mark.parametrize("squeeze_excite", [True, False])
def test_unused_weights_are_reported(package_log, squeeze_excite):
    weights = "timm://efficientnet_b0.ra_in1k"
    backbone = EfficientNet("efficientnet_b0", out_features=["res5"], squeeze_excite=squeeze_excite)
    with package_log.at_level(logging.INFO):
        summary = summary_of(backbone, weights)
    summary.require_similar_model()
    assert_loaded(backbone, read_weights_file(fetch_weights(weights))["model"])
    (record,) = [r for r in package_log.records if "Weights of" in r.getMessage()]
    assert record.levelname == ("INFO" if squeeze_excite else "WARNING")
    tops = {name.split(".")[0] for name in summary.unexpected}
    assert tops == {"bn2", "classifier", "conv_head"} | (set() if squeeze_excite else {"blocks"})
    in_blocks = [name for name in summary.unexpected if name.startswith("blocks")]
    assert all(".se.conv_" in name for name in in_blocks)


@pytest.mark.parametrize("size", "sml")
def test_lite_models_use_all_weights_and_equal_timm(root, package_log, size):
    """No weight of the blocks is left out, and no warning is logged."""
    cfg = load_config(str(root / f"configs/cityscapes/eseg_lite_{size}.yaml"), [])
    backbone = build_backbone(cfg).bottom_up.eval()
    with package_log.at_level(logging.WARNING):
        summary_of(backbone, cfg.MODEL.WEIGHTS).require_similar_model()
    assert not [r for r in package_log.records if r.name.startswith("eseg_d2.engine")]
    source = timm.create_model(cfg.MODEL.EFFICIENTNET.NAME).eval()
    source.load_state_dict(read_weights_file(fetch_weights(cfg.MODEL.WEIGHTS))["model"])
    x = 4 * torch.randn(1, 3, 64, 96)  # large enough to exceed the bound of ReLU6
    with torch.no_grad():
        features = backbone(x)
        expected = source.blocks(source.bn1(source.conv_stem(x)))
    torch.testing.assert_close(features["res5"], expected)


@pytest.mark.parametrize("other", ["efficientnet_b1", "efficientnet_b2"])
def test_weights_of_another_network_are_refused(other):
    backbone = EfficientNet(other, out_features=["res5"])
    with pytest.raises(ValueError, match="another (network|depth)"):
        summary_of(backbone, "timm://efficientnet_b0.ra_in1k").require_similar_model()


@pytest.mark.parametrize(
    "name", ["efficientnet_b1.x_in1k", "efficientnet_b99", "tf_efficientnet_b0_ns", ""]
)
def test_names_without_weights_are_reported(name):
    with pytest.raises(FileNotFoundError, match=f"'timm://{name}'.*timm has no weights '{name}'"):
        fetch_weights(f"timm://{name}")


def test_failed_download_is_reported_and_leaves_no_file(monkeypatch, tmp_path):
    def refuse(name, pretrained):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(FileNotFoundError, match="no route to host"):
        fetch_weights("timm://efficientnet_b0.ra_in1k")
    assert not list(tmp_path.rglob("*.pth*"))


def test_state_dict_in_a_file_can_be_converted(tmp_path):
    """This is how weights get to a machine without a connection."""
    source = timm.create_model("efficientnet_b1").state_dict()
    torch.save(source, tmp_path / "bare.pth")
    path = convert_weights(str(tmp_path / "bare.pth"), timm_model="efficientnet_b1.ft_in1k")
    backbone = EfficientNet("efficientnet_b1", out_features=["res5"])
    SafeCheckpointer(Model(backbone)).load_weights(path, config(MEAN, STD))
    assert_loaded(backbone, source)
    with pytest.raises(ValueError, match="bare.safetensors were trained with: .123.675"):
        SafeCheckpointer(Model(backbone)).load_weights(path, config(HALF, HALF))
    with pytest.raises(ValueError, match="timm has no weights 'efficientnet_b1.none'"):
        convert_weights(str(tmp_path / "bare.pth"), timm_model="efficientnet_b1.none")


def test_weights_of_timm_can_be_converted_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = convert_weights("timm://efficientnet_b0.ra_in1k")
    assert path == "efficientnet_b0.ra_in1k.safetensors"
    content = read_weights_file(path)
    assert content["normalization"] == '{"mean": [123.675, 116.28, 103.53], "std": ' + f"{STD}}}"
    backbone = EfficientNet("efficientnet_b0", out_features=["res5"])
    summary_of(backbone, path).require_similar_model()
    assert_loaded(backbone, content["model"])
