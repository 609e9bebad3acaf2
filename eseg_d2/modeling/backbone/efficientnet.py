"""EfficientNets of timm as Detectron2 backbones, and ImageNet weights of timm's models."""

import os
from collections.abc import Mapping

import timm
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import get_cache_dir
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from eseg_d2.utils.errors import check_choice
from eseg_d2.utils.files import write_atomically

__all__ = [
    "EfficientNet",
    "TimmHandler",
    "build_efficientnet_backbone",
    "build_efficientnet_fpn_backbone",
    "in_zoo_form",
]

_ACTIVATIONS = {"": None, "relu": nn.ReLU, "swish": nn.SiLU}
_NORMS = ("BN", "SyncBN")
_STAGES = ("res1", "res2", "res3", "res4", "res5")


class EfficientNet(Backbone):
    """Features of a timm EfficientNet (B0 .. B7, Lite, V2, and their TensorFlow ports "tf_...").

    They are named like those of Detectron2's ResNet: "res2" has stride 4, "res5" 32 ("res1", stride
    2, is there as well). A feature is the output of the last block of its stride, before the
    expansion of the next one: 24, 40, 112 and 320 channels for B0.

    Shape:
        image (N, 3, H, W) to {"res2": float (N, C, ceil(H / 4), ceil(W / 4)), ...}.
    """

    def __init__(
        self,
        name: str,
        *,
        out_features: list[str],
        squeeze_excite: bool = True,
        activation: str = "",
        norm: str = "BN",
        drop_path_rate: float = 0.0,
        freeze_at: int = 0,
        in_channels: int = 3,
    ):
        """
        Args:
            name: a timm model, such as "efficientnet_b0" or "tf_efficientnetv2_s".
            out_features: of "res1" .. "res5".
            squeeze_excite: False leaves the squeeze-and-excitation blocks out.
            activation: "relu" or "swish" in place of the model's own, or "" for that.
            norm: "BN", or "SyncBN" over all processes (on one process the same as "BN").
            drop_path_rate: chance that the last residual block is skipped in training; those
                before it less often, down to 0 (stochastic depth).
            freeze_at: like Detectron2's MODEL.BACKBONE.FREEZE_AT: 1 freezes the stem, 2 all up to
                "res2", and so on to 5. Frozen norms keep their running statistics.
            in_channels: of the image.

        Raises:
            ValueError: an argument is not one of those.
        """
        super().__init__()
        _check(name, out_features, activation, norm, freeze_at)
        options: dict = {"drop_path_rate": drop_path_rate, "in_chans": in_channels}
        if not squeeze_excite:
            options["se_layer"] = nn.Identity  # timm passes it the block's widths
        if activation:
            options["act_layer"] = _ACTIVATIONS[activation]
        self._out_features = [feature for feature in _STAGES if feature in out_features]
        indices = [_STAGES.index(feature) for feature in self._out_features]
        network = timm.create_model(name, features_only=True, out_indices=indices, **options)
        self.network = convert_sync_batchnorm(network) if norm == "SyncBN" else network
        infos = dict(zip(_STAGES, network.feature_info.info, strict=True))
        self._out_feature_strides = {n: info["reduction"] for n, info in infos.items()}
        self._out_feature_channels = {n: info["num_chs"] for n, info in infos.items()}
        self._stages = {n: info["stage"] for n, info in infos.items()}  # blocks up to a feature
        self.freeze_at = freeze_at
        for module in self._frozen():
            module.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(self._out_features, self.network(x), strict=True))

    def train(self, mode: bool = True):
        super().train(mode)
        for frozen in self._frozen():
            for module in frozen.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        if self.freeze_at == 0:
            return []
        stages = 0 if self.freeze_at == 1 else self._stages[f"res{self.freeze_at}"]
        return [self.network.conv_stem, self.network.bn1, *self.network.blocks[:stages]]


@BACKBONE_REGISTRY.register()
def build_efficientnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> EfficientNet:
    """Build an :class:`EfficientNet` from ``cfg.MODEL.EFFICIENTNET``, with random weights.

    MODEL.WEIGHTS "timm://NAME.TAG" are its ImageNet weights, see
    :mod:`~eseg_d2.modeling.backbone.efficientnet`.

    Args:
        cfg: a Detectron2 config with our keys.
        input_shape: of the image.

    Raises:
        ValueError: see :class:`EfficientNet`.
    """
    options = cfg.MODEL.EFFICIENTNET
    return EfficientNet(
        options.NAME,
        out_features=options.OUT_FEATURES,
        squeeze_excite=options.SQUEEZE_EXCITE,
        activation=options.ACTIVATION,
        norm=options.NORM,
        drop_path_rate=options.DROP_PATH_RATE,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
    )


@BACKBONE_REGISTRY.register()
def build_efficientnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build Detectron2's FPN, of ``cfg.MODEL.FPN``, over an :class:`EfficientNet`.

    A max pool makes one level above the last, like in Detectron2's ``build_resnet_fpn_backbone``.

    Args:
        cfg: a Detectron2 config with our keys.
        input_shape: of the image.
    """
    return FPN(
        bottom_up=build_efficientnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _check(name: str, out_features: list[str], activation: str, norm: str, freeze_at: int) -> None:
    if "." in name:
        raise ValueError(
            f"MODEL.EFFICIENTNET.NAME is {name!r}; expected a model without a tag, such as "
            f"{name.partition('.')[0]!r}. Its weights are MODEL.WEIGHTS 'timm://{name}'"
        )
    if not timm.is_model(name) or "efficientnet" not in name:
        raise ValueError(
            f"MODEL.EFFICIENTNET.NAME is {name!r}; expected an EfficientNet of timm, such as "
            "'efficientnet_b0', 'tf_efficientnet_b7', 'efficientnet_lite0', 'tf_efficientnetv2_s'"
        )
    unknown = [feature for feature in out_features if feature not in _STAGES]
    if unknown or not out_features:
        raise ValueError(
            f"MODEL.EFFICIENTNET.OUT_FEATURES is {out_features}; expected some of {_STAGES}"
        )
    check_choice("MODEL.EFFICIENTNET.ACTIVATION", activation, _ACTIVATIONS)
    check_choice("MODEL.EFFICIENTNET.NORM", norm, _NORMS)
    if not 0 <= freeze_at <= 5:
        raise ValueError(f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}; expected 0 .. 5")


class TimmHandler(PathHandler):
    """Gets the weights "timm://NAME.TAG", such as "timm://efficientnet_b1.ft_in1k".

    timm downloads them, and keeps them in its cache. Beside what Detectron2 downloads (in
    ``$FVCORE_CACHE``, or ``~/.torch/iopath_cache``) they are then written in the form that
    Detectron2's checkpointers load, ours and its own: see :func:`in_zoo_form`. Without a tag they
    are timm's default ones, which depend on its version.
    """

    PREFIX = "timm://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        self._check_kwargs(kwargs)
        record = _record(path.removeprefix(self.PREFIX))
        name = f"{record.architecture}.{record.tag}"
        file = os.path.join(get_cache_dir(), "timm", f"{name}.pth")
        if force or not os.path.isfile(file):
            content = in_zoo_form(timm.create_model(name, pretrained=True).state_dict(), name)
            write_atomically(file, lambda f: torch.save(content, f))
        return file

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs):
        return PathManager.open(self._get_local_path(path), mode, buffering, **kwargs)


def in_zoo_form(weights: Mapping[str, torch.Tensor], name: str) -> dict:
    """Return weights of a timm model as the content of a file that Detectron2's checkpointers load.

    Args:
        weights: the state dict of the timm model.
        name: of the model, with the tag that says which weights they are.

    Returns:
        ``{"model", "__author__", "matching_heuristics", "normalization"}``. By the heuristics the
        tensors find their places in whatever holds the network. The normalisation is ``{"mean",
        "std"}``, each of red, green and blue, 0 .. 255, that the weights were trained with.

    Raises:
        ValueError: timm does not know these weights.
    """
    record = _record(name)
    mean, std = ([round(255 * x, 3) for x in values] for values in (record.mean, record.std))
    return {
        "model": dict(weights),
        "__author__": "timm",
        "matching_heuristics": True,
        "normalization": {"mean": mean, "std": std},
    }


def _record(name: str):
    """Return what timm knows of a model's weights."""
    model, _, tag = name.partition(".")
    tagged = timm.list_models(f"{model}.*", include_tags=True) if timm.is_model(model) else []
    record = timm.models.get_pretrained_cfg(name) if name in (model, *tagged) else None
    if record is None or not record.tag:
        known = f"{model} has {', '.join(tagged)}" if tagged else "there is no such model"
        raise ValueError(
            f"timm has no weights {name!r}: {known}. Expected a model and the tag of its weights, "
            "such as 'efficientnet_b0.ra_in1k'"
        )
    return record


PathManager.register_handler(TimmHandler())
