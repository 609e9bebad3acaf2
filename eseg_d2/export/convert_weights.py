"""Weights as safetensors: a format that cannot do harm, with what is known of the model in it."""

import json
import logging
import os

import safetensors.torch
import torch
from detectron2.data import MetadataCatalog

from eseg_d2.config import load_config
from eseg_d2.data.datasets.panoptic_format import is_panoptic
from eseg_d2.engine.weights import fetch_weights, in_detectron2_form
from eseg_d2.modeling.backbone.efficientnet import in_zoo_form
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.files import write_atomically
from eseg_d2.utils.json_yaml import read_json_or_none
from eseg_d2.utils.weights_file import read_weights_file

__all__ = ["convert_weights"]

logger = logging.getLogger(__name__)


def convert_weights(
    source: str,
    target: str = "",
    *,
    config_file: str = "",
    timm_model: str = "",
    half: bool = False,
) -> str:
    """Write the weights of a file, and nothing else of it, as safetensors.

    The metadata, texts by name, hold "config" (YAML), "classes" (json: a list of objects with name
    and isthing, by class id) and "metrics" (the run's results.json), as far as they are known; of
    weights of timm "normalization" (json: mean and std), which MODEL.PIXEL_MEAN and
    MODEL.PIXEL_STD are then compared with.

    Args:
        source: a checkpoint or a file of a model zoo, ``.pth``, ``.pkl``, ``.pyth`` or
            ``.safetensors``; or what Detectron2's PathManager takes, "timm://NAME.TAG" say.
        target: a ``.safetensors`` file, replaced if it is there; "" takes the source's name.
        config_file: of the model; "" takes ``config.yaml`` beside the source, if it is there.
        timm_model: NAME.TAG, if the source holds the state dict of this model of timm.
        half: write kernels and matrices in half precision, which takes half of the space; vectors,
            such as the variances of batch norms, keep theirs.

    Returns:
        The path of the written file.

    Raises:
        ValueError: the source cannot be read or holds no weights, the target has another suffix,
            or the config that was named is wrong.
        OSError: there is no such source, or the target cannot be written.
    """
    path = fetch_weights(source)
    name = os.path.basename(path) if "://" in source else source
    target = target or os.path.splitext(name)[0] + ".safetensors"
    if not target.endswith(".safetensors"):
        raise ValueError(f"the file to write is {target}; its name must end with .safetensors")
    content = in_detectron2_form(read_weights_file(path), path)
    if timm_model:
        content = in_zoo_form(content["model"], timm_model)
    weights = {name: torch.as_tensor(value) for name, value in content["model"].items()}
    if half:
        weights = {name: _halved(value) for name, value in weights.items()}
    # Tensors that share their memory are written once each
    weights = {
        name: value.clone(memory_format=torch.contiguous_format) for name, value in weights.items()
    }
    metadata = {"format": "pt", **_of_model(source, config_file)}
    if content.get("matching_heuristics"):  # the names are not those of the model
        metadata["matching_heuristics"] = "True"
        metadata["__author__"] = str(content.get("__author__"))
    if "normalization" in content:
        normalization = content["normalization"]
        is_text = isinstance(normalization, str)
        metadata["normalization"] = normalization if is_text else json.dumps(normalization)
    data = safetensors.torch.save(weights, metadata)
    write_atomically(target, lambda file: file.write(data))
    return target


def _halved(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.ndim > 1 and value.is_floating_point() else value


def _of_model(source: str, config_file: str) -> dict[str, str]:
    folder = os.path.dirname(source)
    beside = os.path.join(folder, "config.yaml")
    metadata = {}
    if config_file or os.path.isfile(beside):
        try:
            metadata = _of_config(config_file or beside)
        except (ValueError, FileNotFoundError) as e:
            if config_file:
                raise
            logger.warning("The config and the classes are left out: %s", e)
    results = read_json_or_none(os.path.join(folder, "results.json"))
    return {**metadata, "metrics": json.dumps(results)} if results else metadata


def _of_config(config_file: str) -> dict[str, str]:
    cfg = load_config(config_file, [])
    metadata = {"config": cfg.dump()}
    if cfg.DATASETS.TRAIN and is_panoptic(cfg.DATASETS.TRAIN[0]):
        space = LabelSpace.from_metadata(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]))
        classes = [
            {"name": name, "isthing": int(index in space.thing_ids)}
            for index, name in enumerate(space.names)
        ]
        metadata["classes"] = json.dumps(classes)
    return metadata
