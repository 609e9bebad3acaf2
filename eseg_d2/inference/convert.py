"""Convert a Detectron2 model's output to a :class:`Prediction`, and raise its score threshold."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from detectron2.structures import Instances

from eseg_d2.data.panoptic_png import count_segments
from eseg_d2.inference.prediction import VOID_CLASS, ClassTable, InstanceResults, Prediction
from eseg_d2.modeling.meta_arch.merge import merge_panoptic
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.structures.mask_crops import MaskCrops

__all__ = ["instance_segments", "panoptic_segments", "raise_threshold", "to_prediction"]


def to_prediction(output: dict, classes: ClassTable, image: np.ndarray) -> Prediction:
    """Return a model's output as numpy arrays and dicts.

    Args:
        output: output for the image, in its size: ``sem_seg`` ((C, H, W) logits or (H, W) labels),
            ``instances``, ``panoptic_seg`` or several of them. Classes of instances are contiguous
            ids if there is a ``panoptic_seg``, else those of the box head.
        classes: classes of the model.
        image: (H, W, 3) uint8 BGR.
    """
    height, width = image.shape[:2]
    prediction = partial(
        Prediction,
        size=(height, width),
        class_names=classes.names,
        class_colors=classes.colors,
        image=image,
    )
    if "panoptic_seg" in output:
        semantic = _semantic(output["sem_seg"], classes)
        panoptic, info = output["panoptic_seg"]
        panoptic = panoptic.cpu().numpy().astype(np.int32, copy=False)
        segments = panoptic_segments(panoptic, info, classes.names)
        instances = _instances(output["instances"], None)
        return prediction(
            "panoptic", segments=segments, panoptic=panoptic, semantic=semantic, instances=instances
        )
    if "instances" in output:
        instances = _instances(output["instances"], classes.from_roi)
        segments = instance_segments(instances, (height, width), classes.names)
        return prediction("instance", segments=segments, instances=instances)
    semantic = _semantic(output["sem_seg"], classes)
    segments = _semantic_segments(semantic, classes.names)
    return prediction("semantic", segments=segments, semantic=semantic)


def _semantic(sem_seg: torch.Tensor, classes: ClassTable) -> np.ndarray:
    labels = sem_seg if sem_seg.dim() == 2 else sem_seg.argmax(dim=0)
    channels = labels.to(torch.uint8).cpu().numpy()
    return np.take(np.array(classes.from_semantic, np.uint8), channels)


def _instances(instances: Instances, from_roi) -> InstanceResults:
    instances = instances.to("cpu")
    instances = instances[torch.argsort(-instances.scores, stable=True)]
    ids = instances.pred_classes.numpy().astype(np.int64)
    crops = instances.pred_masks if instances.has("pred_masks") else None
    if isinstance(crops, torch.Tensor):
        crops = MaskCrops.from_tensor(crops.bool())
    return InstanceResults(
        boxes=instances.pred_boxes.tensor.float().numpy(),
        scores=instances.scores.float().numpy(),
        classes=ids if from_roi is None else np.array(from_roi, np.int64)[ids],
        crops=crops,
    )


def panoptic_segments(panoptic: np.ndarray, info: list[dict], names: tuple[str, ...]) -> list[dict]:
    """Return the :attr:`Prediction.segments` of a panoptic map.

    Args:
        panoptic: (H, W) segment ids.
        info: segments from :func:`eseg_d2.modeling.meta_arch.merge.merge_panoptic`.
        names: class names by class id.
    """
    found = count_segments(panoptic)
    segments = []
    for s in info:
        area, bbox = found[s["id"]]
        thing, score = bool(s["isthing"]), s.get("score")
        segment = (s["id"], s["category_id"], names, thing, score, area, panoptic.size, bbox)
        segments.append(_segment(*segment))
    return segments


def _semantic_segments(semantic: np.ndarray, names: tuple[str, ...]) -> list[dict]:
    found = sorted(count_segments(semantic).items())
    return [
        _segment(c, c, names, False, None, pixels.area, semantic.size, pixels.bbox)
        for c, pixels in found
    ]


def instance_segments(
    instances: InstanceResults, size: tuple[int, int], names: tuple[str, ...]
) -> list[dict]:
    """Return the :attr:`Prediction.segments` of objects in an image of ``size`` (H, W)."""
    segments = []
    for i, (x0, y0, x1, y1) in enumerate(instances.boxes.tolist()):
        area = round((x1 - x0) * (y1 - y0))
        if instances.crops is not None:
            area = int(instances.crops.crops[i][2].sum())
        box = tuple(round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0))
        score, class_id = float(instances.scores[i]), int(instances.classes[i])
        pixels = size[0] * size[1]
        segments.append(_segment(i + 1, class_id, names, True, score, area, pixels, box))
    return segments


def _segment(segment_id, class_id, names, isthing, score, area, pixels, bbox) -> dict:
    return {
        "id": int(segment_id),
        "class_id": int(class_id),
        "class_name": names[class_id],
        "isthing": isthing,
        "score": None if score is None else float(score),
        "area": int(area),
        "share": area / pixels,
        "bbox": list(bbox),
    }


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
