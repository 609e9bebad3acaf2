"""Compare the time of a training iteration between panoptic models."""

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from eseg_d2.apps.benchmarks.measure import peak_memory, take_turns
from eseg_d2.apps.benchmarks.model_benchmark import panoptic_config
from eseg_d2.utils.markup import markdown_table

__all__ = ["benchmark_training", "format_training"]


def benchmark_training(
    sources: dict[str, str], size: tuple[int, int], *, objects: int, repeats: int, device: str
) -> list[dict]:
    """Time forward, backward and update on one image, the models in turns.

    Args:
        sources: panoptic models by name, given as for
            :func:`~eseg_d2.apps.benchmarks.model_benchmark.build_predictor`. All start from random
            weights, and train the layers that the config trains.
        size: (H, W) of the image.
        objects: number of objects in the image, each of a sixteenth of its area.
        repeats: timed rounds, after one to warm up.
        device: "cpu" or "cuda".

    Returns:
        For each model {"name", "seconds": {"median", "min", "max"}, "peak_bytes", "ratio"}, where
        the ratio is its time over that of the last model.
    """
    calls = {}
    for name, source in sources.items():
        cfg = panoptic_config(source, device)
        calls[name] = _iteration(cfg, _sample(cfg, size, objects))
    seconds = take_turns(calls, repeats, device)
    last = seconds[[*sources][-1]]["median"]
    return [
        {
            "name": name,
            "seconds": seconds[name],
            "peak_bytes": peak_memory(calls[name], device),
            "ratio": seconds[name]["median"] / last,
        }
        for name in sources
    ]


def _iteration(cfg: CfgNode, sample: dict):
    if cfg.MODEL.META_ARCHITECTURE not in ("PanopticRCNN", "PanopticFPN"):
        raise ValueError(f"got a {cfg.MODEL.META_ARCHITECTURE}; expected a panoptic model")
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # random weights would diverge without warm-up
    storage = EventStorage()

    def iteration():
        with storage:
            loss = sum(model([sample]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return iteration


def _sample(cfg: CfgNode, size: tuple[int, int], objects: int) -> dict:
    """Return a training sample for any panoptic model: noise, covered with objects and stuff."""
    rng = np.random.default_rng(0)
    height, width = size
    corners = rng.random((objects, 2)) * 0.75 * (width, height)
    boxes = np.concatenate([corners, corners + (width / 4, height / 4)], 1).round()
    masks = torch.zeros(objects, height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int).tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes).float())
    instances.gt_classes = torch.arange(objects) % cfg.MODEL.ROI_HEADS.NUM_CLASSES
    instances.gt_masks = BitMasks(masks)
    patches = rng.integers(
        0, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, (-(-height // 32), -(-width // 32))
    )
    sem_seg = np.kron(patches, np.ones((32, 32), np.int64))[:height, :width]
    image = rng.integers(0, 256, (3, height, width)).astype(np.float32)
    return {
        "image": torch.from_numpy(image),
        "instances": instances,
        "sem_seg": torch.from_numpy(sem_seg),
        "height": height,
        "width": width,
    }


def format_training(rows: list[dict]) -> str:
    """Return a Markdown table of medians in seconds, with the spread."""
    lines = []
    for row in rows:
        low, middle, high = (row["seconds"][key] for key in ("min", "median", "max"))
        times = f"{middle:.2f} ({low:.2f} - {high:.2f})"
        lines.append(
            [row["name"], times, f"{row['peak_bytes'] / 2**20:.0f}", f"{row['ratio']:.2f}"]
        )
    head = ["model", "s/iteration (min - max)", "peak MiB", f"time of {rows[-1]['name']}"]
    return markdown_table(head, lines)
