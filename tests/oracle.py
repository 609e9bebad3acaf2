"""Perfect predictions, made from the ground truth."""

import numpy as np
import torch
from detectron2.structures import BitMasks, Instances

from eseg_d2.evaluation.ground_truth import GroundTruth


def evaluate_perfect(evaluator, truth: GroundTruth, degrade=lambda output: output) -> dict:
    """Return an evaluator's results for perfect outputs, or for what ``degrade`` makes of them."""
    evaluator.reset()
    for file_name, record in truth.records.items():
        evaluator.process([record], [degrade(perfect_output(truth, file_name))])
    return evaluator.evaluate()


def perfect_output(truth: GroundTruth, file_name: str) -> dict:
    """Return what a perfect model would output for an image of the data set."""
    segments = truth.records[file_name]["segments_info"]
    index = truth.segment_index(file_name)
    kept = [i for i, s in enumerate(segments) if not s["iscrowd"]]
    segment_map = np.zeros(index.shape, dtype=np.int32)
    for new_id, i in enumerate(kept, start=1):
        segment_map[index == i] = new_id
    predicted = [
        {"id": n, "category_id": segments[i]["category_id"], "isthing": segments[i]["isthing"]}
        for n, i in enumerate(kept, start=1)
    ]
    things = [i for i in kept if segments[i]["isthing"]]
    instances = Instances(index.shape)
    instances.pred_masks = torch.from_numpy(
        np.stack([index == i for i in things] or [np.zeros(index.shape, bool)])[: len(things)]
    )
    instances.pred_boxes = BitMasks(instances.pred_masks).get_bounding_boxes()
    instances.scores = torch.ones(len(things))
    instances.pred_classes = torch.tensor(
        [segments[i]["category_id"] for i in things], dtype=torch.int64
    )
    semantic = torch.from_numpy(truth.semantic_map(file_name))
    space = truth.label_space
    semantic[semantic == space.ignore_label] = 0
    logits = torch.nn.functional.one_hot(semantic, space.num_semantic).permute(2, 0, 1).float()
    return {
        "panoptic_seg": (torch.from_numpy(segment_map), predicted),
        "sem_seg": logits,
        "instances": instances,
    }
