"""From a config and its weights to a verified model file."""

import json
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image

from eseg_d2.data.images import read_image
from eseg_d2.engine import load_trained
from eseg_d2.export.files import export_graph, load_exported
from eseg_d2.export.panoptic import PanopticGraph, merge_settings
from eseg_d2.export.semantic import SemanticGraph
from eseg_d2.export.verify import compare_outputs, compare_panoptic, require_agreement

__all__ = ["export_model"]


def export_model(
    cfg: CfgNode,
    folder: Path,
    kind: str,
    *,
    size: tuple[int, int] | None = None,
    dynamic: bool = False,
    with_logits: bool = False,
    image_files: list[str] | None = None,
) -> tuple[Path, dict]:
    """Export a semantic or panoptic model and compare the file with the model in eager mode.

    Writes the model file and ``model.json``, which describes it.

    Args:
        cfg: MODEL.WEIGHTS is loaded; MODEL.DEVICE must be "cpu".
        folder: made if it is not there.
        kind: "onnx", "torchscript" or "torch_export".
        size: (H, W) of the images, in pixels; by default INPUT.MIN_SIZE_TEST x MAX_SIZE_TEST.
        dynamic: H and W may be any; then the file is verified at several sizes.
        with_logits: of semantic models: output the logits, too.
        image_files: verify on these images, too, besides random ones.

    Returns:
        The model file and the content of ``model.json``.

    Raises:
        ValueError: the model cannot be exported so, or the file says something else.
        FileNotFoundError: the weights or an image are missing.
    """
    model = load_trained(cfg, architectures=("SemanticSegmentor", "PanopticRCNN"))
    size = size or (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    graph = _graph(cfg, model, kind, with_logits).eval()
    sizes = [size]
    if dynamic:
        step = graph.divisibility
        sizes += [(size[0] + step + 1, size[1] - step // 2), (2 * step, 3 * step)]
    images = [_random_image(s) for s in sizes]
    images += [
        _photo(file, cfg.INPUT.FORMAT, None if dynamic else size) for file in image_files or []
    ]
    # of the example a trace keeps some branches: an image in which things may be found
    path = export_graph(graph, folder, kind, images[-1][None], dynamic=dynamic)
    info = {
        "input": {"name": "image", "shape": [1, 3, *(["H", "W"] if dynamic else size)]},
        "channels": cfg.INPUT.FORMAT,
        "outputs": graph.output_names,
        "torch": torch.__version__,
        "images": len(images),
    }
    exported = load_exported(path)
    if isinstance(graph, PanopticGraph):
        info["merge"] = merge_settings(model)
        info["agreement"] = compare_panoptic(
            model, exported, graph.output_names, info["merge"], images
        )
    else:
        info["agreement"] = compare_outputs(model, exported, images)
    require_agreement(info["agreement"], str(path))
    (folder / "model.json").write_text(json.dumps(info, indent=1) + "\n")
    return path, info


def _graph(cfg: CfgNode, model, kind: str, with_logits: bool):
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        return SemanticGraph(model, with_logits=with_logits)
    if kind == "torch_export":
        raise ValueError(
            "torch.export cannot follow a panoptic model, whose number of boxes depends on the "
            "image. Take --format onnx or torchscript."
        )
    if with_logits:
        raise ValueError("--logits is for semantic models; a panoptic one outputs labels")
    return PanopticGraph(model)


def _random_image(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (3, *size)).astype(np.float32)


def _photo(file: str, channels: str, size: tuple[int, int] | None) -> np.ndarray:
    image = read_image(file, channels)
    if size:
        image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
