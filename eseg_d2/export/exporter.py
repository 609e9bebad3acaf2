"""Export a model from its config and weights to a verified file."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import nn
from tqdm import tqdm

from eseg_d2.data.datasets.builtin import require_datasets
from eseg_d2.data.datasets.panoptic_format import is_panoptic
from eseg_d2.data.images import IMAGE_SUFFIXES, FastResize, build_augmentation, read_image
from eseg_d2.engine import load_trained
from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.export.formats import export_graph, load_exported, load_onnx
from eseg_d2.export.graphs import ImageGraph, PanopticGraph, SemanticGraph, merge_settings
from eseg_d2.export.int8 import Quantizer
from eseg_d2.export.verify import (
    compare_labels,
    compare_outputs,
    compare_panoptic,
    label_agreement,
    require_agreement,
)
from eseg_d2.modeling.meta_arch.panoptic_rcnn import PanopticRCNN
from eseg_d2.utils.files import write_atomically
from eseg_d2.utils.json_yaml import write_json

__all__ = ["INT8_FILE", "MAX_MIOU_LOSS", "export_int8", "export_model"]

INT8_FILE = "model_int8.onnx"
MAX_MIOU_LOSS = 1.0  # in points
CALIBRATION_IMAGES = 100  # more would only widen the ranges by single outliers
_TRIAL_IMAGES, _TOP_LAYERS = 4, 8  # in the search for the layers that lose most in int8
_SPEED_ROUNDS = 15


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
        folder: created if missing.
        kind: "onnx", "torchscript" or "torch_export".
        size: (H, W) of the images, in pixels; by default INPUT.MIN_SIZE_TEST x MAX_SIZE_TEST.
        dynamic: allow any H and W; the file is then verified at several sizes.
        with_logits: also output the logits; for semantic models only.
        image_files: images on which to verify the file, in addition to random ones.

    Returns:
        The path of the model file, and the content of ``model.json``.

    Raises:
        ValueError: the model cannot be exported in this way, or the file disagrees with the model.
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
    resizing = [] if dynamic else [FastResize(T.Resize(size))]
    images += [_photo(file, cfg.INPUT.FORMAT, resizing) for file in image_files or []]
    # a trace keeps the branches that its example takes: use an image that may contain things
    path = export_graph(graph, folder, kind, images[-1][None], dynamic=dynamic)
    info = {
        "input": {"name": "image", "shape": [1, 3, *(["H", "W"] if dynamic else size)]},
        "channels": cfg.INPUT.FORMAT,
        "outputs": graph.output_names,
        "torch": torch.__version__,
        "images": len(images),
    }
    exported = load_exported(path)
    if isinstance(model, PanopticRCNN):
        info["merge"] = merge_settings(model)
        info["agreement"] = compare_panoptic(
            model, exported, graph.output_names, info["merge"], images
        )
    else:
        info["agreement"] = compare_outputs(model, exported, images)
    require_agreement(info["agreement"], str(path))
    write_json(folder / "model.json", info, indent=1, sort_keys=False)
    return path, info


def _graph(cfg: CfgNode, model: nn.Module, kind: str, with_logits: bool) -> ImageGraph:
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        return SemanticGraph(model, with_logits=with_logits)
    if kind == "torch_export":
        raise ValueError(
            "torch.export cannot follow a panoptic model, whose number of boxes depends on the "
            "image. Use --format onnx or torchscript."
        )
    if with_logits:
        raise ValueError("--logits is for semantic models; a panoptic one outputs labels")
    assert isinstance(model, PanopticRCNN)  # load_trained takes no third kind here
    return PanopticGraph(model)


def _random_image(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (3, *size)).astype(np.float32)


def _photo(file: str, channels: str, augmentations: list[T.Augmentation]) -> np.ndarray:
    image = T.AugInput(read_image(file, channels))
    T.AugmentationList(augmentations)(image)
    return np.ascontiguousarray(image.image.transpose(2, 0, 1), dtype=np.float32)


def export_int8(
    cfg: CfgNode,
    folder: Path,
    calibration: Path,
    *,
    size: tuple[int, int] | None = None,
    dynamic: bool = False,
    with_logits: bool = False,
    image_files: list[str] | None = None,
    keep: Sequence[str] = (),
) -> tuple[Path, dict]:
    """Export a semantic model as ONNX, in fp32 and in int8, and compare the two.

    Writes the files of :func:`export_model` and ``model_int8.onnx``; "int8" in ``model.json`` tells
    how well the two agree.

    Args:
        cfg, folder, size, dynamic, with_logits, image_files: see :func:`export_model`.
        calibration: folder of images from which the ranges of the activations are taken; at most
            100 of them are used, evenly spread.
        keep: convolutions that stay in fp32; see :meth:`~eseg_d2.export.int8.Quantizer.quantize`.

    Returns:
        The path of the int8 file, and the content of ``model.json``. Its "int8" has "labels", the
        share of pixels with the same label in both (on the validation set, or else on four images
        of the calibration); "mIoU" of both in percent, or None if the first of DATASETS.TEST does
        not exist; and "milliseconds" of both for an image, medians of calls in turns.

    Raises:
        ValueError: see :func:`export_model`; or the model is panoptic, an image cannot be read, or
            the mIoU falls by more than 1.0, in which case no int8 file is written.
        FileNotFoundError: see :func:`export_model`; or there is no image in the folder.
    """
    if cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
        raise ValueError(
            f"--int8 is for semantic models, but this is a {cfg.MODEL.META_ARCHITECTURE}: the "
            "boxes and masks of a panoptic model are not supported. Omit --int8."
        )
    files = _calibration_files(calibration)
    path = folder / INT8_FILE
    path.unlink(missing_ok=True)
    fp32_path, info = export_model(
        cfg,
        folder,
        "onnx",
        size=size,
        dynamic=dynamic,
        with_logits=with_logits,
        image_files=image_files,
    )
    if dynamic:
        resizing = build_augmentation(cfg, is_train=False)
    else:
        resizing = [FastResize(T.Resize(tuple(info["input"]["shape"][2:])))]
    load = partial(_photo, channels=cfg.INPUT.FORMAT, augmentations=resizing)
    quantizer = Quantizer(fp32_path, map(load, files), len(files))
    content = quantizer.quantize(keep)
    runs = {"fp32": load_exported(fp32_path), "int8": load_onnx(content)}
    trial = [load(file) for file in files[:_TRIAL_IMAGES]]
    truth = _validation_set(cfg)
    if truth:
        miou = compare_labels(runs, truth, load)
        labels = miou.pop("labels")
        if miou["fp32"] - miou["int8"] > MAX_MIOU_LOSS:
            layers = _costly_layers(quantizer, keep, runs["fp32"], trial)
            raise ValueError(
                f"in int8 the mIoU on {cfg.DATASETS.TEST[0]} falls from {miou['fp32']:.1f} to "
                f"{miou['int8']:.1f}, by more than {MAX_MIOU_LOSS}, so {path} is not written. "
                "Calibrate on more or other images, or keep the layers that lose most in fp32:\n"
                f"  --keep {' '.join([*keep, *layers])}"
            )
    else:
        miou = None
        labels = label_agreement(runs["int8"], trial, _labels(runs["fp32"], trial))
    write_atomically(str(path), lambda file: file.write(content))
    info["int8"] = {
        "file": path.name,
        "calibration_images": len(files),
        "kept_in_fp32": list(keep),
        "labels": labels,
        "mIoU": miou,
        "milliseconds": _milliseconds(runs, trial[0][None]),
    }
    write_json(folder / "model.json", info, indent=1, sort_keys=False)
    return path, info


def _labels(run: Callable, images: list[np.ndarray]) -> list[np.ndarray]:
    return [run(image[None])[0][0] for image in images]


def _calibration_files(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"--calibration {folder}: no such folder")
    files = sorted(x for x in folder.rglob("*") if x.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"--calibration {folder}: no image in it or in its subfolders; expected files such as "
            f".jpg or .png. A few dozen images like those that the model will see are enough"
        )
    return [str(file) for file in files[:: -(-len(files) // CALIBRATION_IMAGES)]]


def _validation_set(cfg: CfgNode) -> GroundTruth | None:
    """Return the first of DATASETS.TEST if it is a panoptic data set that exists, else None."""
    for name in cfg.DATASETS.TEST[:1]:
        try:
            require_datasets([name])
        except (ValueError, FileNotFoundError):
            return None
        if is_panoptic(name):
            return GroundTruth(name, cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES)
    return None


def _costly_layers(
    quantizer: Quantizer, keep: Sequence[str], fp32: Callable, images: list[np.ndarray]
) -> list[str]:
    """Return the convolutions that gain most agreement when one at a time is kept in fp32."""
    labels = _labels(fp32, images)
    agreement = {}
    for layer in tqdm(quantizer.layers, desc="looking for costly layers", unit="layer"):
        trial = load_onnx(quantizer.quantize([*keep, layer]))
        agreement[layer] = label_agreement(trial, images, labels)
    layers = sorted(
        (x for x in agreement if x not in keep), key=agreement.__getitem__, reverse=True
    )
    return layers[:_TOP_LAYERS]


def _milliseconds(runs: dict[str, Callable], image: np.ndarray) -> dict[str, float]:
    """Return medians of calls in turns, so that other load on the machine affects all of them."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_SPEED_ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run(image)
            spent[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in spent.items()}
