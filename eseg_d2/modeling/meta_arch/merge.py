"""Merge semantic and instance predictions into one panoptic map."""

import torch
from detectron2.structures import Instances

from eseg_d2.structures.label_space import LabelSpace

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
    "things" by its number; which ids are stuff, the label space says.

    Args:
        instances: of one image, with ``pred_masks`` (N, H, W) bool, ``scores`` (N,) in 0..1
            and ``pred_classes`` (N,), contiguous ids.
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
    panoptic = torch.zeros_like(semantic, dtype=torch.int32)
    free = torch.ones_like(semantic, dtype=torch.bool)
    segments_info: list[dict] = []

    def add(mask: torch.Tensor, area: int, **info) -> None:
        segment_id = len(segments_info) + 1
        panoptic[mask] = segment_id
        free.logical_and_(~mask)
        segments_info.append({"id": segment_id, "area": area, **info})

    masks = instances.pred_masks.to(device=semantic.device, dtype=torch.bool)
    scores = instances.scores.tolist()
    classes = instances.pred_classes.tolist()
    for i in torch.argsort(-instances.scores).tolist():
        if scores[i] < score_threshold:
            break
        visible = masks[i] & free
        area, full_area = int(visible.sum()), int(masks[i].sum())
        if area == 0 or full_area - area > overlap_threshold * full_area:
            continue
        add(visible, area, category_id=classes[i], isthing=True, score=scores[i], instance_id=i)

    # not torch.unique, which sorts the pixels
    for train_id in torch.bincount(semantic.flatten()).nonzero().flatten().tolist():
        contiguous = int(label_space.semantic_to_contiguous[train_id])
        if contiguous < 0 or label_space.is_thing[contiguous]:
            continue
        mask = (semantic == train_id) & free
        area = int(mask.sum())
        if area and area >= stuff_area_limit:
            add(mask, area, category_id=contiguous, isthing=False)
    return panoptic, segments_info
