"""ImageNet weights of timm's EfficientNets, and the normalisation that they were trained with."""

import logging
import os
import re

import numpy as np
import timm
import torch
from detectron2.config import CfgNode

from eseg_d2.modeling.backbone.efficientnet import EfficientNet, check_name
from eseg_d2.utils.weights_file import read_weights_file

__all__ = ["fetch_pretrained", "load_pretrained"]

logger = logging.getLogger(__name__)

NORMALIZATION_TOLERANCE = 1.0  # of 0 .. 255: means and deviations are often written rounded


def fetch_pretrained(cfg: CfgNode) -> dict[str, torch.Tensor]:
    """Return the ImageNet weights that MODEL.EFFICIENTNET.PRETRAINED names.

    Args:
        cfg: MODEL.EFFICIENTNET, MODEL.PIXEL_MEAN, MODEL.PIXEL_STD and INPUT.FORMAT are read.
            PRETRAINED "timm" stands for the weights that timm downloads (and keeps) for NAME;
            else it is a file with a state dict of that model.

    Raises:
        FileNotFoundError: the file is not there, or the download failed.
        ValueError: timm has no model or tag of this NAME; or the images would be normalised
            otherwise than those that its weights were trained on. A file is checked if NAME ends
            in a tag, since the tag says which weights it holds.
    """
    name, source = cfg.MODEL.EFFICIENTNET.NAME, cfg.MODEL.EFFICIENTNET.PRETRAINED
    check_name(name)
    if source == "timm" or "." in name:
        _require_normalization(cfg, name)
    if source == "timm":
        try:
            return timm.create_model(name, pretrained=True).state_dict()
        except Exception as e:  # timm's and its hub's errors are of many kinds
            raise FileNotFoundError(
                f"cannot get timm's weights for MODEL.EFFICIENTNET.NAME {name!r}: "
                f"{type(e).__name__}: {e}\n"
                "  Without a connection set MODEL.EFFICIENTNET.PRETRAINED to a file with the state "
                "dict of that timm model, or to '' for random weights."
            ) from e
    if not os.path.isfile(source):
        raise FileNotFoundError(
            f"MODEL.EFFICIENTNET.PRETRAINED is {source!r}: no such file. Give a file with the "
            "state dict of the timm model, 'timm' to download it, or '' for random weights."
        )
    state = read_weights_file(source)
    return state.get("state_dict", state.get("model", state))


def load_pretrained(backbone: EfficientNet, cfg: CfgNode) -> None:
    """Load ImageNet weights, and log which of them have no place in the network.

    These are the classifier's, and the squeeze-and-excitation's if it was switched off. All that
    the network has must be among the weights.

    Args:
        backbone: changed in place.
        cfg: see :func:`fetch_pretrained`.

    Raises:
        FileNotFoundError: see :func:`fetch_pretrained`.
        ValueError: the weights are those of another model, or see :func:`fetch_pretrained`.
    """
    state = fetch_pretrained(cfg)
    name, source = cfg.MODEL.EFFICIENTNET.NAME, cfg.MODEL.EFFICIENTNET.PRETRAINED
    own = backbone.network.state_dict()
    unlike = [
        key for key, value in own.items() if key not in state or state[key].shape != value.shape
    ]
    if unlike:
        raise ValueError(
            f"MODEL.EFFICIENTNET.PRETRAINED {source!r} does not fit {name}: {len(unlike)} of "
            f"{len(own)} weights are missing or of another shape, such as {unlike[0]}"
        )
    backbone.network.load_state_dict({key: state[key] for key in own})
    left_out = state.keys() - own.keys()
    modules = sorted({re.sub(r"\.\d+", ".*", key.rpartition(".")[0]) for key in left_out})
    in_blocks = any(module.startswith("blocks") for module in modules)
    logger.log(
        logging.WARNING if in_blocks else logging.INFO,
        "%s of %s: loaded %d weights; %d have no place in the network and are left out: %s",
        *(name, source, len(own), len(left_out), ", ".join(modules) or "none"),
    )


def _require_normalization(cfg: CfgNode, name: str) -> None:
    record = timm.models.get_pretrained_cfg(name)
    if record is None:  # one of timm's deprecated names
        raise ValueError(
            f"MODEL.EFFICIENTNET.NAME is {name!r}, of whose weights timm has no record; expected "
            "a model and the tag of its weights, such as 'efficientnet_b0.ra_in1k'"
        )
    theirs = _normalization(record, cfg.INPUT.FORMAT)
    ours = np.array([cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD])
    if ours.shape == theirs.shape and np.allclose(ours, theirs, atol=NORMALIZATION_TOLERANCE):
        return
    mean, std = theirs.tolist()
    raise ValueError(
        f"MODEL.PIXEL_MEAN {cfg.MODEL.PIXEL_MEAN} and MODEL.PIXEL_STD {cfg.MODEL.PIXEL_STD} are "
        f"not those that timm's weights {record.architecture}.{record.tag} were trained with: "
        f"{mean} and {std} (INPUT.FORMAT {cfg.INPUT.FORMAT}).\n"
        f'  Set MODEL.PIXEL_MEAN "{mean}" MODEL.PIXEL_STD "{std}", or choose weights of another '
        f"tag by MODEL.EFFICIENTNET.NAME: {', '.join(timm.list_pretrained(name.split('.')[0]))}"
    )


def _normalization(record, image_format: str) -> np.ndarray:
    """Mean and standard deviation of timm's record, each 0 .. 255, in the format's order."""
    values = np.round(255 * np.array([record.mean, record.std]), 3)
    return values[:, ::-1] if image_format == "BGR" else values
