"""Weights files: fetch them, check their form and normalisation, and report what was loaded."""

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from torch import nn

from eseg_d2.utils.errors import listing
from eseg_d2.utils.weights_file import UnreadableWeightsError

__all__ = ["WeightsSummary", "check_normalization", "fetch_weights", "in_detectron2_form"]

_NORMALIZATION_TOLERANCE = 1.0  # of 0 .. 255: means and deviations are often rounded
# Detectron2's loader fills these in, or they are computed again
_NOT_NEEDED = ("pixel_mean", "pixel_std", "running_mean", "running_var", "num_batches_tracked")


def fetch_weights(weights: str) -> str:
    """Return the local path of MODEL.WEIGHTS, after downloading it to a cache if it is a URL.

    Args:
        weights: a file, or any path of Detectron2's PathManager: "detectron2://...",
            "timm://NAME.TAG", "https://..."; "" is returned unchanged.

    Raises:
        FileNotFoundError: there is no such file, or the URL cannot be reached.
    """
    if not weights:
        return ""
    try:
        path = PathManager.get_local_path(weights)
        found, reason = os.path.isfile(path), "no such file"
    except Exception as e:  # the handlers behind PathManager raise all kinds of errors
        found, reason = False, f"{type(e).__name__}: {e}".rstrip(".")
    if not found:
        raise FileNotFoundError(
            f"cannot get MODEL.WEIGHTS {weights!r}: {reason}.\n"
            "  Give a file or a URL that can be reached, or MODEL.WEIGHTS '' to start from random "
            "weights."
        )
    return path


def in_detectron2_form(content, path: str) -> dict:
    """Convert the content of a file to the form that Detectron2's checkpointer loads.

    Args:
        content: see :func:`eseg_d2.utils.weights_file.read_weights_file`.
        path: path of the file; its suffix and content tell Detectron2's zoo, Caffe2 and pycls
            apart.

    Returns:
        A dict with "model", tensors or arrays by name, and the other entries of the file.

    Raises:
        UnreadableWeightsError: there are no weights in the file.
    """
    if not isinstance(content, dict):
        raise UnreadableWeightsError(
            f"{path} holds a {type(content).__name__}; expected a dict of tensors by name"
        )
    if path.endswith(".pkl") and not ("model" in content and "__author__" in content):
        model = _tensors_in(content.get("blobs", content), path, but="_momentum")
        return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}
    if path.endswith(".pyth"):
        model = _tensors_in(content.get("model_state", content), path, but="num_batches_tracked")
        return {"model": model, "__author__": "pycls", "matching_heuristics": True}
    content = content if "model" in content else {"model": content}
    return {**content, "model": _tensors_in(content["model"], path)}


def _tensors_in(weights, path: str, but: str | None = None) -> dict:
    """Return a dict of tensors or arrays of numbers, without the names that end with ``but``."""
    if not isinstance(weights, dict) or not weights:
        kind = type(weights).__name__ if weights else "nothing"
        raise UnreadableWeightsError(f"{path} holds no weights: {kind} instead of tensors by name")
    for name, value in weights.items():
        is_array = isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
        if not (isinstance(name, str) and (is_array or isinstance(value, torch.Tensor))):
            raise UnreadableWeightsError(
                f"{path} holds no weights: {name!r} is of type {type(value).__name__}, not a tensor"
            )
    return {k: v for k, v in weights.items() if not (but and k.endswith(but))}


def check_normalization(content: Mapping, path: str, cfg: CfgNode) -> None:
    """Check that images are normalised as in the training of the weights.

    Args:
        content: content of the file. Its "normalization", if present, is ``{"mean", "std"}`` of
            red, green and blue, 0 .. 255, or the same as json.
        path: path of the file, for the message.
        cfg: MODEL.PIXEL_MEAN, MODEL.PIXEL_STD and INPUT.FORMAT are read.

    Raises:
        ValueError: the normalisation differs; the message says how to set the keys.
    """
    theirs = content.get("normalization")
    if theirs is None:
        return
    try:
        theirs = json.loads(theirs) if isinstance(theirs, str) else theirs
        theirs = np.array([theirs["mean"], theirs["std"]], float)
    except (ValueError, TypeError, KeyError) as e:
        raise UnreadableWeightsError(
            f"{path} holds the normalization {theirs!r:.100}; expected mean and std"
        ) from e
    theirs = theirs[:, ::-1] if cfg.INPUT.FORMAT == "BGR" else theirs
    ours = np.array([cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD])
    if ours.shape == theirs.shape and np.allclose(ours, theirs, atol=_NORMALIZATION_TOLERANCE):
        return
    mean, std = theirs.tolist()
    raise ValueError(
        f"MODEL.PIXEL_MEAN {cfg.MODEL.PIXEL_MEAN} and MODEL.PIXEL_STD {cfg.MODEL.PIXEL_STD} are "
        f"not those that the weights of {path} were trained with: {mean} and {std} (INPUT.FORMAT "
        f"{cfg.INPUT.FORMAT}).\n"
        f'  Set MODEL.PIXEL_MEAN "{mean}" MODEL.PIXEL_STD "{std}", or give weights of another tag.'
    )


class WeightsSummary:
    """What a model loaded from a weights file.

    Attributes:
        loaded: number of tensors that were loaded.
        missing: names of the model's tensors that the file lacks.
        unexpected: names of the file's tensors that the model lacks.
        mismatched: (name, shape in the file, shape in the model).
        is_partial: whether the model loaded only some tensors of a part of the file, such as a
            network's blocks, so that it computes something else than in the weights' training.
    """

    def __init__(self, path: str, model: nn.Module, given: set[str], incompatible):
        """
        Args:
            path: path of the file, for the messages.
            model: the model after loading.
            given: names of the tensors in the file.
            incompatible: what fvcore's ``Checkpointer`` returns.
        """
        self.path, self._model = path, model
        self.mismatched = list(incompatible.incorrect_shapes)
        self.unexpected = list(incompatible.unexpected_keys)
        differing = {name for name, _, _ in self.mismatched}
        missing = [name for name in incompatible.missing_keys if name not in differing]
        self.missing = [name for name in missing if not name.endswith(_NOT_NEEDED)]
        self.loaded = len(given) - len(self.unexpected) - len(differing)
        parts = {name.split(".")[0] for name in given - {*self.unexpected}}
        odd = [name for name in self.unexpected if not name.endswith(_NOT_NEEDED)]
        self.is_partial = any(name.split(".")[0] in parts for name in odd)

    def __str__(self) -> str:
        total = len(self._model.state_dict())
        parts = [f"Weights of {self.path}: {self.loaded} of the model's {total} tensors loaded"]
        if self.missing:
            groups = _groups(self.missing)
            parts.append(f"{len(self.missing)} missing, left as they were ({groups})")
        if self.mismatched:
            shapes = listing(
                f"{n}: {tuple(got)}, model {tuple(own)}" for n, got, own in self.mismatched
            )
            parts.append(f"{len(self.mismatched)} of another shape, left out ({shapes})")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} not used ({_groups(self.unexpected)})")
        return "; ".join(parts)

    def require_same_model(self) -> None:
        """Raise a ValueError if a tensor was missing or had another shape.

        Evaluation and resuming need the whole model.
        """
        if self.missing or self.mismatched:
            raise ValueError(
                f"the weights do not belong to this model. {self}.\n  "
                f"{self._hint()}Give the config that they were trained with, or other weights."
            )

    def require_similar_model(self) -> None:
        """Check that a training can start from the weights: only heads may be new.

        Raises:
            ValueError: most of the file does not fit, or the bottom-up differs.
        """
        given = self.loaded + len(self.unexpected) + len(self.mismatched)
        if 2 * self.loaded < given:
            raise ValueError(
                f"the weights belong to another network. {self}.\n  Most of the file does not fit: "
                "give weights of this architecture, or MODEL.WEIGHTS '' to start from random ones."
            )
        prefix = "backbone.bottom_up."
        parameters = {name for name, _ in self._model.named_parameters() if name.startswith(prefix)}
        missing = [name for name in self.missing if name in parameters]
        if missing and len(missing) < len(parameters):
            raise ValueError(
                f"MODEL.WEIGHTS {self.path} lacks {len(missing)} of the {len(parameters)} "
                f"parameters of backbone.bottom_up ({listing(missing)}): the depth or kind "
                "differs. Set the keys of the bottom-up (such as MODEL.RESNETS.DEPTH) to those of "
                "the weights, or give other weights."
            )

    def _hint(self) -> str:
        for name, of_file, own in self.mismatched:
            if len(of_file) == len(own) and of_file[1:] == own[1:] and "predict" in name:
                return (
                    f"{name} has {of_file[0]} outputs in the file and {own[0]} in the model: the "
                    "numbers of classes, which come from the data sets, differ. "
                )
        return ""


def _groups(names: Collection[str]) -> str:
    """Return the first two parts of names, with the number of names that begin with them."""
    counts = Counter(".".join(name.split(".")[:2]) for name in names)
    return listing([f"{group}.*: {count}" for group, count in counts.most_common()], limit=5)
