"""A trained model, ready for inference."""

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from eseg_d2.engine.checkpoint import load_weights
from eseg_d2.engine.setup import fetch_weights
from eseg_d2.modeling.gpu import set_precision

__all__ = ["load_trained"]


def load_trained(cfg: CfgNode, *, architectures: tuple[str, ...]) -> nn.Module:
    """Build the model of a config, in evaluation mode, with MODEL.WEIGHTS ("" leaves random ones).

    Args:
        cfg: not changed.
        architectures: the MODEL.META_ARCHITECTURE that the caller can work with.

    Raises:
        ValueError: the model has another architecture, or the weights are of another model.
        FileNotFoundError: MODEL.WEIGHTS cannot be had.
    """
    if cfg.MODEL.META_ARCHITECTURE not in architectures:
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}; expected "
            f"{' or '.join(architectures)}"
        )
    fetch_weights(cfg.MODEL.WEIGHTS)
    set_precision(cfg)
    model = build_model(cfg).eval()
    load_weights(model, cfg.MODEL.WEIGHTS)
    return model
