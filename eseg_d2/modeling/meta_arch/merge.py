"""Merge semantic and instance predictions into one panoptic map."""

import torch
from detectron2.structures import Instances

from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.structures.mask_crops import MaskCrops

__all__ = ["merge_panoptic"]


def merge_panoptic(
    instances: Instances,
    semantic: torch.Tensor,
    label_space: LabelSpace,
    *,
    overlap_threshold: float = 0.5,
    stuff_area_limit: int = 4096,
    score_threshold: float = 0.5,
) -> tuple[torch.Tensor, list[dict]]:
    """Panoptic FPN's heuristic: instances by descending score, then stuff where nothing is yet.

    Unlike Detectron2's ``combine_semantic_and_instance_outputs`` it takes no semantic label for
    "things" by its number; which ids are stuff, the label space says. On a GPU it waits for
    results a fixed number of times, however many instances there are.

    Args:
        instances: of one image, with ``pred_masks`` ((N, H, W) bool, or :class:`MaskCrops`),
            ``scores`` (N,) in 0..1 and ``pred_classes`` (N,), contiguous ids.
        semantic: (H, W) integers, semantic train ids.
        label_space: of the data set.
        overlap_threshold: an instance is dropped if more than this share of its mask is taken.
        stuff_area_limit: stuff regions of fewer pixels stay void.
        score_threshold: instances below are dropped.

    Returns:
        The (H, W) int32 map of segment ids (0 is void), and one dict a segment: ``id``,
        ``category_id`` (contiguous id), ``isthing``, ``area`` (pixels), and for things also
        ``score`` and ``instance_id``, the row in ``instances``.
    """
    masks = instances.pred_masks
    if isinstance(masks, torch.Tensor):
        masks = MaskCrops.from_tensor(masks.to(device=semantic.device, dtype=torch.bool))
    scores = instances.scores.tolist()
    classes = instances.pred_classes.tolist()
    order = torch.argsort(-instances.scores).tolist()
    order = [i for i in order if not scores[i] < score_threshold]
    contiguous = label_space.semantic_to_contiguous.tolist()
    # each pixel's index: the place of its instance in the order, after the semantic labels
    owner = _claim_pixels(masks, order, semantic, overlap_threshold)
    index = torch.where(owner >= 0, owner + len(contiguous), semantic.int())
    areas = torch.bincount(index.flatten(), minlength=len(contiguous) + len(order)).tolist()

    ids = [0] * len(areas)
    segments: list[dict] = []

    def add(index: int, **info) -> None:
        ids[index] = len(segments) + 1
        segments.append({"id": ids[index], "area": areas[index], **info})

    for n, i in enumerate(order, start=len(contiguous)):
        if areas[n]:
            add(n, category_id=classes[i], isthing=True, score=scores[i], instance_id=i)
    for train_id, category in enumerate(contiguous):
        is_stuff = category >= 0 and not label_space.is_thing[category]
        if is_stuff and areas[train_id] >= max(stuff_area_limit, 1):
            add(train_id, category_id=category, isthing=False)
    table = torch.tensor(ids, dtype=torch.int32, device=semantic.device)
    return table.index_select(0, index.flatten()).view_as(index), segments


def _claim_pixels(
    masks: MaskCrops, order: list[int], semantic: torch.Tensor, overlap_threshold: float
) -> torch.Tensor:
    """Give each pixel to the first instance that has it, unless too little of that one is left.

    Returns:
        (H, W) int32: the place in ``order`` of each pixel's instance, -1 where there is none.
    """
    owner = torch.full_like(semantic, -1, dtype=torch.int32)
    for n, i in enumerate(order):
        mask, region = masks.crops[i][2], masks.window(i, owner)
        visible = mask & (region < 0)
        area, full = visible.sum(), mask.sum()
        kept = full - area <= overlap_threshold * full.double()
        region.masked_fill_(visible & kept, n)
    return owner
