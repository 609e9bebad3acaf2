"""Raise the score threshold of a prediction without running the model again."""

from dataclasses import replace

import numpy as np
import torch
from detectron2.structures import Instances

from eseg_d2.inference.classes import VOID_CLASS
from eseg_d2.inference.convert import instance_segments, panoptic_segments
from eseg_d2.inference.prediction import InstanceResults, Prediction
from eseg_d2.modeling.meta_arch.merge import merge_panoptic
from eseg_d2.structures.label_space import LabelSpace

__all__ = ["raise_threshold"]


def raise_threshold(prediction: Prediction, threshold: float, model) -> Prediction:
    """Return what the model would have predicted with a higher score threshold.

    Args:
        prediction: prediction of the model; a semantic one is returned unchanged.
        threshold: 0 .. 1; objects below are left out. Objects that the model itself left out
            do not come back.
        model: the :class:`eseg_d2.modeling.meta_arch.panoptic_rcnn.PanopticRCNN` of a panoptic
            prediction, which defines how to merge; not used for other predictions.
    """
    if prediction.instances is None:
        return prediction
    instances = _above(prediction.instances, threshold)
    names = prediction.class_names
    if prediction.kind == "instance":
        segments = instance_segments(instances, prediction.size, names)
        return replace(prediction, instances=instances, segments=segments)
    found = Instances(
        prediction.size,
        pred_masks=instances.crops,
        scores=torch.from_numpy(instances.scores),
        pred_classes=torch.from_numpy(instances.classes),
    )
    assert prediction.semantic is not None  # of a panoptic model
    channels = torch.from_numpy(_channels(prediction.semantic, model.label_space))
    options = {**model.merge_options, "score_threshold": threshold}
    merged, info = merge_panoptic(found, channels, model.label_space, **options)
    panoptic = merged.numpy()
    segments = panoptic_segments(panoptic, info, names)
    return replace(prediction, instances=instances, panoptic=panoptic, segments=segments)


def _above(instances: InstanceResults, threshold: float) -> InstanceResults:
    count = int((instances.scores >= threshold).sum())  # scores are in descending order
    crops = None if instances.crops is None else instances.crops[:count]
    return InstanceResults(
        instances.boxes[:count], instances.scores[:count], instances.classes[:count], crops
    )


def _channels(semantic: np.ndarray, label_space: LabelSpace) -> np.ndarray:
    """Map class ids to channels of the semantic head; ``VOID_CLASS`` to that of all things."""
    contiguous = label_space.semantic_to_contiguous
    table = np.zeros(VOID_CLASS + 1, np.int64)
    table[np.where(contiguous < 0, VOID_CLASS, contiguous)] = np.arange(len(contiguous))
    return table[semantic]
