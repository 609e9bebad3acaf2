"""Raising the threshold of a prediction equals running the model with it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from eseg_d2.inference.convert import raise_threshold, to_prediction
from eseg_d2.inference.prediction import VOID_CLASS, ClassTable
from eseg_d2.modeling.meta_arch.merge import merge_panoptic
from eseg_d2.structures.label_space import SEMANTIC_CLASSES, LabelSpace

NAMES = ("road", "car", "sky", "person")


def equal(a, b) -> bool:
    arrays = ("panoptic", "semantic")
    found = ("boxes", "scores", "classes", "masks")
    return (
        a.segments == b.segments
        and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays)
        and all(np.array_equal(getattr(a.instances, n), getattr(b.instances, n)) for n in found)
    )


@pytest.mark.parametrize("semantic_classes", SEMANTIC_CLASSES)
def test_panoptic_prediction_is_merged_again(semantic_classes):
    space = LabelSpace(NAMES, (7, 26, 23, 24), (1, 3), semantic_classes=semantic_classes)
    options = {"overlap_threshold": 0.5, "stuff_area_limit": 3}
    model = SimpleNamespace(label_space=space, merge_options={**options, "score_threshold": 0.5})
    contiguous = space.semantic_to_contiguous
    classes = ClassTable(
        NAMES, ((0, 0, 0),) * 4, tuple(np.where(contiguous < 0, VOID_CLASS, contiguous).tolist())
    )
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand(space.num_semantic, 12, 16, generator=generator)
    instances = Instances(
        (12, 16),
        pred_boxes=Boxes(torch.rand(6, 4, generator=generator)),
        pred_masks=torch.rand(6, 12, 16, generator=generator) < 0.3,
        scores=torch.tensor([0.2, 0.9, 0.4, 0.7, 0.1, 0.6]),
        pred_classes=torch.tensor([1, 3, 1, 1, 3, 3]),
    )

    def predict(threshold: float):
        kept = instances[instances.scores >= threshold]
        merged = merge_panoptic(kept, logits.argmax(0), space, **options, score_threshold=threshold)
        output = {"sem_seg": logits, "instances": kept, "panoptic_seg": merged}
        return to_prediction(output, classes, np.zeros((12, 16, 3), np.uint8))

    complete = predict(0.0)
    for threshold in 0.0, 0.4, 0.65, 1.0:
        assert equal(raise_threshold(complete, threshold, model), predict(threshold))
    assert not equal(raise_threshold(complete, 1.0, model), complete)
