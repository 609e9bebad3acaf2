"""What a run costs: speed and memory by its metrics.json, parameters and multiply-adds."""

from collections import Counter
from statistics import median

from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from torch import nn

from eseg_d2.apps.report.metrics import finite
from eseg_d2.apps.report.run_folder import Run
from eseg_d2.data.datasets.builtin import require_datasets
from eseg_d2.data.datasets.panoptic_format import dataset_dicts
from eseg_d2.evaluation.complexity import PARTS, count_multiply_adds

__all__ = ["data_shares", "model_size", "parameters_by_part", "speed_rows", "throughput"]


def throughput(run: Run) -> list[tuple[float, float]]:
    """Return (iteration, images per second over all GPUs): as written, else batch by seconds."""
    batch = finite(run.setting("SOLVER.IMS_PER_BATCH"))
    points = []
    for row in run.metrics:
        if "images_per_second" in row:
            points.append((row["iteration"] + 1, row["images_per_second"]))
        elif batch and row.get("time", 0) > 0:
            points.append((row["iteration"] + 1, batch / row["time"]))
    return points


def data_shares(run: Run) -> list[tuple[float, float]]:
    """Return (iteration, percent of its time spent waiting for data)."""
    points = []
    for row in run.metrics:
        if "data_share" in row:
            points.append((row["iteration"] + 1, 100 * row["data_share"]))
        elif "data_time" in row and row.get("time", 0) > 0:
            points.append((row["iteration"] + 1, 100 * min(row["data_time"] / row["time"], 1)))
    return points


def speed_rows(run: Run) -> dict[str, str]:
    """Return what is known of speed and memory, as text by name."""
    rows = {}
    speeds, shares = throughput(run), data_shares(run)
    seconds = [row["time"] for row in run.metrics if "time" in row]
    memory = [row["max_mem"] for row in run.metrics if "max_mem" in row]
    if speeds:
        rows["images per second, median"] = f"{median(y for _, y in speeds):.3g}"
    if seconds:
        rows["seconds an iteration, median"] = f"{median(seconds):.3g}"
    if shares:
        rows["waiting for data, median"] = f"{median(y for _, y in shares):.1f} %"
    if seconds and run.iterations:
        rows["time in iterations, about"] = _duration(median(seconds) * run.iterations)
    if memory:
        on_gpu = str(run.setting("MODEL.DEVICE", "")).startswith("cuda")
        kind = "GPU memory" if on_gpu else "memory of the process (RSS)"
        rows[f"{kind}, largest"] = f"{max(memory) / 1024:.1f} GiB"
    return rows


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


# Attributes of the models that have another name in analyze_model.py
_PARTS = {"sem_seg_head": "head", "proposal_generator": "proposals"}


def model_size(cfg: CfgNode) -> dict:
    """Count parameters and multiply-adds of a run's model.

    Args:
        cfg: of the run; not changed.

    Returns:
        ``{"params": {part: count}, "macs": {part: count}, "size": (H, W) or None}``: the
        multiply-adds are for the first validation image as the model gets it; without the data
        set there are none.

    Raises:
        ValueError: the model cannot be built or counted.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    model = build_model(cfg).eval()
    params = parameters_by_part(model)
    try:
        require_datasets(cfg.DATASETS.TEST)
        record = dataset_dicts(cfg.DATASETS.TEST[0])[0]
    except (FileNotFoundError, IndexError):
        return {"params": params, "macs": {}, "size": None}
    size = T.ResizeShortestEdge.get_output_shape(
        record["height"], record["width"], cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    )
    macs, _ = count_multiply_adds(model, cfg, size)
    return {"params": params, "macs": macs, "size": size}


def parameters_by_part(model: nn.Module) -> dict[str, int]:
    """Count parameters by part: "backbone" (the bottom-up alone), "pyramid", "head" (semantic),
    "proposals", "roi_heads", or the name of the module."""
    counts: Counter[str] = Counter()
    for name, child in model.named_children():
        counts[_PARTS.get(name, name)] += _count(child)
    bottom_up = getattr(getattr(model, "backbone", None), "bottom_up", None)
    if bottom_up is not None:
        counts["pyramid"] = counts["backbone"] - _count(bottom_up)
        counts["backbone"] = _count(bottom_up)
    order = [*PARTS, *(part for part in counts if part not in PARTS)]
    return {part: counts[part] for part in order if counts[part]}


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
