"""ImageNet weights of timm's models as MODEL.WEIGHTS: "timm://NAME.TAG"."""

import os
from collections.abc import Mapping

import timm
import torch
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import get_cache_dir

from eseg_d2.utils.files import write_atomically

__all__ = ["TimmHandler", "in_zoo_form"]


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
