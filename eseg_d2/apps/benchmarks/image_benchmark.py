"""Compare what surrounds a semantic network, from reading to labelling, with Detectron2's way."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from PIL import Image
from torch.nn.functional import interpolate

from eseg_d2.apps.benchmarks.measure import take_turns
from eseg_d2.apps.benchmarks.model_benchmark import build_predictor
from eseg_d2.data.images import read_image, resize_image
from eseg_d2.inference import Predictor
from eseg_d2.layers.label_map import label_map
from eseg_d2.modeling.sem_seg.head import logits_stride
from eseg_d2.utils.markup import markdown_table

__all__ = ["benchmark_images", "format_images", "image_steps"]

Size = tuple[int, int]
Calls = dict[str, tuple[Callable, Callable]]  # ours and Detectron2's, by step


def benchmark_images(config_file: str, photo: Size, size: Size, *, repeats: int) -> dict:
    """Time each step around a network with our functions and with Detectron2's, in turns.

    Args:
        config_file: config of a semantic model, whose weights are random.
        photo: (H, W) of the image as stored, and of its labels.
        size: (H, W) that the network sees.
        repeats: timed rounds, after one to warm up.

    Returns:
        {step: {"ours", "detectron2": {"median", "min", "max"}, in seconds}}.

    Raises:
        ValueError: the config is wrong, or it is a model of torchvision or Detectron2.
    """
    predictor = build_predictor(config_file, size, "cpu")
    if not isinstance(predictor, Predictor):
        raise ValueError(f"{config_file} is a peer's model; expected a config of a semantic model")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        steps = image_steps(predictor, Path(folder), photo, size)
        calls = {(step, i): call for step, pair in steps.items() for i, call in enumerate(pair)}
        seconds = take_turns(calls, repeats, "cpu")
    return {step: {"ours": seconds[step, 0], "detectron2": seconds[step, 1]} for step in steps}


def image_steps(predictor: Predictor, folder: Path, photo: Size, size: Size) -> Calls:
    """Return, for each step, our way and Detectron2's, as calls that give the same.

    Args:
        predictor: a predictor of a semantic model, for images of ``size``.
        folder: where the images that are read are written.
        photo, size: see :func:`benchmark_images`.
    """
    return _reading(folder, photo) | _around(predictor, photo, size)


def _picture(size: Size) -> np.ndarray:
    """Return an image as smooth as a photograph, with some noise."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 250, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(smooth) + generator.integers(0, 6, (*size, 3), dtype=np.uint8)


def _reading(folder: Path, photo: Size) -> Calls:
    calls = {}
    for suffix in ("jpg", "png"):
        path = str(folder / f"photo.{suffix}")
        Image.fromarray(_picture(photo)).save(path)
        theirs = partial(detection_utils.read_image, path, "BGR")
        calls[f"reading ({suffix})"] = partial(read_image, path), theirs
    return calls


def _around(predictor: Predictor, photo: Size, size: Size) -> Calls:
    image, seen = _picture(photo), _picture(size)
    transform = T.ResizeTransform(*photo, *size)
    model, stride = predictor.model, logits_stride(predictor.model.sem_seg_head)
    logits = predictor.network(predictor.preprocess([seen]))[0]

    def normalise() -> torch.Tensor:
        pixels = seen[:, :, ::-1] if predictor.cfg.INPUT.FORMAT == "RGB" else seen
        x = torch.as_tensor(pixels.astype("float32").transpose(2, 0, 1))
        x = (x - model.pixel_mean) / model.pixel_std
        return ImageList.from_tensors([x], model.backbone.size_divisibility).tensor

    def label() -> torch.Tensor:
        full = interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
        return sem_seg_postprocess(full[0], size, *photo).argmax(dim=0)

    labelled = partial(label_map, logits, stride=stride, image_size=size, output_size=photo)
    return {
        "resizing": (partial(resize_image, image, size), partial(transform.apply_image, image)),
        "normalising": (partial(predictor.preprocess, [seen]), normalise),
        "labelling": (labelled, label),
    }


def format_images(result: dict) -> str:
    """Return a Markdown table of the medians in milliseconds."""
    rows = []
    for step, seconds in result.items():
        ours, theirs = (seconds[who]["median"] for who in ("ours", "detectron2"))
        rows.append([step, f"{ours * 1e3:.1f}", f"{theirs * 1e3:.1f}", f"{theirs / ours:.1f}x"])
    return markdown_table(["step", "ours, ms", "Detectron2's, ms", "speed"], rows)
