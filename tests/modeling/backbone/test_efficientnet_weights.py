"""ImageNet weights of EfficientNets, with files in place of downloads."""

import logging
from pathlib import Path

import pytest
import timm
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone

import eseg_d2
from eseg_d2.engine import load_config, require_inputs
from eseg_d2.modeling.backbone import efficientnet_weights
from eseg_d2.modeling.backbone.efficientnet import EfficientNet
from eseg_d2.modeling.backbone.efficientnet_weights import fetch_pretrained, load_pretrained

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
ESEG = sorted(p for p in CONFIGS.rglob("eseg_*.yaml"))
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
HALF = [127.5] * 3


def config(name, source, mean=None, std=None, image_format="RGB"):
    cfg = get_cfg()
    eseg_d2.add_eseg_config(cfg)
    cfg.MODEL.EFFICIENTNET.NAME, cfg.MODEL.EFFICIENTNET.PRETRAINED = name, str(source)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = mean or MEAN, std or STD
    cfg.INPUT.FORMAT = image_format
    return cfg


def weights_file(folder, name):
    path = folder / f"{name}.pth"
    source = timm.create_model(name)
    torch.save(source.state_dict(), path)
    return path, source


@pytest.fixture
def no_download(monkeypatch):
    """timm's downloads give random weights; the names that were asked for."""
    asked, create_model = [], timm.create_model

    def create(name, pretrained=False, **options):
        if pretrained:
            asked.append(name)
        return create_model(name, **options)

    monkeypatch.setattr(efficientnet_weights.timm, "create_model", create)
    return asked


@pytest.mark.parametrize("path", ESEG, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_configs_name_weights_by_tag(path):
    name = load_config(str(path), []).MODEL.EFFICIENTNET.NAME
    assert "." in name and timm.is_model_pretrained(name)
    assert "jft" not in name


@pytest.mark.parametrize(
    "path", [p for p in ESEG if p.parent.name == "cityscapes"], ids=lambda p: p.name
)
def test_configs_normalise_as_their_weights_need_it(path, no_download):
    cfg = load_config(str(path), [])
    assert cfg.MODEL.EFFICIENTNET.PRETRAINED == "timm"
    assert fetch_pretrained(cfg)
    assert no_download == [cfg.MODEL.EFFICIENTNET.NAME]


@pytest.mark.parametrize(
    "name, mean, std, image_format",
    [
        ("efficientnet_b1.ra4_e3600_r240_in1k", HALF, HALF, "RGB"),
        ("efficientnet_b1.ft_in1k", MEAN, STD, "RGB"),
        ("efficientnet_b1.ft_in1k", MEAN[::-1], STD[::-1], "BGR"),
        ("efficientnet_b1.ft_in1k", [124, 116, 104], [58, 57, 57], "RGB"),
    ],
)
def test_normalisation_of_the_weights_is_accepted(name, mean, std, image_format, no_download):
    assert fetch_pretrained(config(name, "timm", mean, std, image_format))


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
def test_another_normalisation_is_refused(name, mean, std, image_format, no_download):
    cfg = config(name, "timm", mean, std, image_format)
    with pytest.raises(ValueError, match="MODEL.PIXEL_MEAN .* are not those") as error:
        fetch_pretrained(cfg)
    message = str(error.value)
    assert str(mean) in message and str(std) in message and name in message
    assert "efficientnet_b1.ft_in1k, efficientnet_b1.ra4_e3600_r240_in1k" in message
    assert not no_download
    settings = message.partition("  Set ")[2].partition(", or")[0]  # what is said helps
    words = settings.replace('"', "").replace(" [", "|[").replace("] ", "]|").split("|")
    cfg.merge_from_list(words)
    assert fetch_pretrained(cfg)


def test_normalisation_is_looked_at_before_anything_is_built(root, scenes, no_download):
    path = str(root / "configs/scenes/eseg_s.yaml")
    cfg = load_config(path, ["MODEL.EFFICIENTNET.PRETRAINED", "timm"])
    with pytest.raises(ValueError, match="PIXEL_MEAN .110.0, 115.0, 115.0.*ft_in1k"):
        require_inputs(cfg, eval_only=False)
    require_inputs(cfg, eval_only=True)


def test_a_file_is_checked_if_the_name_has_a_tag(tmp_path):
    path, _ = weights_file(tmp_path, "efficientnet_b0")
    with pytest.raises(ValueError, match="are not those that timm's weights efficientnet_b0.ra_in"):
        fetch_pretrained(config("efficientnet_b0.ra_in1k", path, HALF, HALF))
    assert fetch_pretrained(config("efficientnet_b0", path, HALF, HALF))


@pytest.mark.parametrize("squeeze_excite", [True, False])
def test_weights_without_a_place_are_named(tmp_path, caplog, squeeze_excite):
    path, source = weights_file(tmp_path, "efficientnet_b0")
    backbone = EfficientNet("efficientnet_b0", out_features=["res5"], squeeze_excite=squeeze_excite)
    with caplog.at_level(logging.INFO):
        load_pretrained(backbone, config("efficientnet_b0", path))
    expected = source.state_dict()
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, expected[key]), key
    (record,) = caplog.records
    assert record.levelname == ("INFO" if squeeze_excite else "WARNING")
    places = record.getMessage().partition("left out: ")[2].split(", ")
    blocks = ["blocks.*.*.se.conv_expand", "blocks.*.*.se.conv_reduce"]
    assert places == [*blocks[: 0 if squeeze_excite else 2], "bn2", "classifier", "conv_head"]


@pytest.mark.parametrize("size", "sml")
def test_lite_models_compute_what_their_weights_were_trained_for(root, tmp_path, caplog, size):
    """No weight of the blocks is left out, and the features are timm's own."""
    cfg = load_config(str(root / f"configs/cityscapes/eseg_lite_{size}.yaml"), [])
    path, source = weights_file(tmp_path, cfg.MODEL.EFFICIENTNET.NAME)
    cfg.MODEL.EFFICIENTNET.PRETRAINED = str(path)
    backbone = build_backbone(cfg).bottom_up.eval()
    with caplog.at_level(logging.WARNING):
        load_pretrained(backbone, cfg)
    assert not caplog.records
    x = 4 * torch.randn(1, 3, 64, 96)  # some of what is computed is above ReLU6's bound
    source.eval()
    with torch.no_grad():
        features = backbone(x)
        expected = source.blocks(source.bn1(source.conv_stem(x)))
    torch.testing.assert_close(features["res5"], expected)


def test_weights_of_another_model_and_files_that_are_not_there(tmp_path):
    path, _ = weights_file(tmp_path, "efficientnet_b0")
    backbone = EfficientNet("efficientnet_b1", out_features=["res5"])
    with pytest.raises(ValueError, match="does not fit efficientnet_b1"):
        load_pretrained(backbone, config("efficientnet_b1", path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_pretrained(backbone, config("efficientnet_b1", tmp_path / "none.pth"))


@pytest.mark.parametrize(
    "name", ["efficientnet_b1.x_in1k", "efficientnet_b99", "resnet18", "tf_efficientnet_b0_ns"]
)
def test_names_without_weights_are_told(name):
    with pytest.raises(ValueError, match=f"MODEL.EFFICIENTNET.NAME is '{name}'"):
        fetch_pretrained(config(name, "timm"))


def test_unreachable_download_is_told(monkeypatch):
    def refuse(name, pretrained):
        raise OSError("no route to host")

    monkeypatch.setattr(efficientnet_weights.timm, "create_model", refuse)
    with pytest.raises(FileNotFoundError, match="no route to host.*\n.*PRETRAINED to a file"):
        fetch_pretrained(config("efficientnet_b0.ra_in1k", "timm"))
