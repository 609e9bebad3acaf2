"""Parameters and multiply-adds of a run's model, by its parts."""

from collections import Counter

from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from torch import nn

from eseg_d2.data.datasets.builtin import require_datasets
from eseg_d2.data.datasets.panoptic import dataset_dicts
from eseg_d2.engine.complexity import PARTS, count_multiply_adds

__all__ = ["model_size", "parameters_by_part"]

# Attributes of the models, and how analyze_model.py calls them
_PARTS = {
    "backbone": "backbone",
    "sem_seg_head": "head",
    "proposal_generator": "proposals",
    "roi_heads": "roi_heads",
}


def model_size(cfg: CfgNode) -> dict:
    """
    Args:
        cfg: of the run; not changed.

    Returns:
        ``{"params": {part: count}, "macs": {part: count}, "size": (H, W) or None}``: multiply-adds
        for the first validation image as the model gets it; none without the data set.

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
    """Numbers of parameters: "backbone" (the bottom-up alone), "pyramid", "head" (semantic),
    "proposals", "roi_heads", or the module's own name; those that a model has."""
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
