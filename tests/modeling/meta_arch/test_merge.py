"""Merging semantic labels and instances into a panoptic segmentation."""

import numpy as np
import pytest
import torch
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Instances

from eseg_d2.modeling.meta_arch.merge import merge_panoptic
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.structures.mask_crops import MaskCrops

# contiguous: 0 road (stuff), 1 car (thing), 2 sky (stuff), 3 cat (thing)
NAMES = ("road", "car", "sky", "cat")


def space(mode="all"):
    return LabelSpace(
        names=NAMES, dataset_ids=(7, 26, 23, 9), thing_ids=(1, 3), semantic_classes=mode
    )


def instances_of(shape, *entries):
    instances = Instances(shape)
    masks = torch.zeros(len(entries), *shape, dtype=torch.bool)
    for mask, (rows, columns, _, _) in zip(masks, entries, strict=True):
        mask[rows, columns] = True
    instances.pred_masks = masks
    instances.pred_classes = torch.tensor([e[2] for e in entries], dtype=torch.int64)
    instances.scores = torch.tensor([e[3] for e in entries])
    return instances


def test_train_id_0_can_be_a_stuff_class():
    semantic = torch.zeros(10, 10, dtype=torch.int64)
    semantic[:4] = 2
    instances = instances_of((10, 10), (slice(2, 6), slice(0, 5), 3, 0.9))
    panoptic, segments = merge_panoptic(instances, semantic, space(), stuff_area_limit=1)
    assert [(s["category_id"], s["isthing"], s["area"]) for s in segments] == [
        (3, True, 20), (0, False, 50), (2, False, 30),
    ]  # fmt: skip
    for segment in segments:
        assert int((panoptic == segment["id"]).sum()) == segment["area"]
    assert (panoptic > 0).all()
    assert segments[0]["instance_id"] == 0 and abs(segments[0]["score"] - 0.9) < 1e-6


def test_pixels_labelled_as_things_stay_void():
    for mode, thing_label, stuff_label in ("all", 1, 2), ("stuff_and_things", 0, 2):
        semantic = torch.full((6, 6), thing_label)
        semantic[:3] = stuff_label  # sky
        panoptic, segments = merge_panoptic(
            instances_of((6, 6)), semantic, space(mode), stuff_area_limit=1
        )
        assert [s["category_id"] for s in segments] == [2]
        assert (panoptic[3:] == 0).all()


def one_by_one(
    instances, semantic, label_space, *, overlap_threshold, stuff_area_limit, score_threshold
):
    """Merge with a full-size mask for each segment."""
    panoptic = torch.zeros_like(semantic, dtype=torch.int32)
    free = torch.ones_like(semantic, dtype=torch.bool)
    segments = []

    def add(mask, **info):
        segments.append({"id": len(segments) + 1, "area": int(mask.sum()), **info})
        panoptic[mask] = len(segments)
        free.logical_and_(~mask)

    scores, classes = instances.scores.tolist(), instances.pred_classes.tolist()
    for i in torch.argsort(-instances.scores).tolist():
        if scores[i] < score_threshold:
            break
        mask = instances.pred_masks[i]
        visible = mask & free
        area, full_area = int(visible.sum()), int(mask.sum())
        if area == 0 or full_area - area > overlap_threshold * full_area:
            continue
        info = {"category_id": classes[i], "isthing": True, "score": scores[i]}
        add(visible, **info, instance_id=i)
    for train_id in torch.unique(semantic).tolist():
        contiguous = int(label_space.semantic_to_contiguous[train_id])
        if contiguous < 0 or label_space.is_thing[contiguous]:
            continue
        mask = (semantic == train_id) & free
        if mask.any() and int(mask.sum()) >= stuff_area_limit:
            add(mask, category_id=contiguous, isthing=False)
    return panoptic, segments


def random_case(seed: int):
    """Draw overlapping instances, the same with cropped masks, semantic labels and options."""
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 24, 2).tolist())
    count = int(rng.integers(0, 9))
    boxes = [[sorted(rng.integers(0, side + 1, 2).tolist()) for side in size] for _ in range(count)]
    crops, masks = [], torch.zeros(count, *size, dtype=torch.bool)
    for n, ((top, bottom), (left, right)) in enumerate(boxes):
        mask = torch.from_numpy(rng.random((bottom - top, right - left)) < rng.random())
        crops.append((top, left, mask))
        masks[n, top:bottom, left:right] = mask
    instances = Instances(size)
    instances.pred_masks = masks
    instances.scores = torch.from_numpy(rng.permutation(count) / 10).float()
    instances.pred_classes = torch.from_numpy(rng.choice([1, 3], count))
    patches = rng.integers(0, 4, (-(-size[0] // 4), -(-size[1] // 4)))
    semantic = np.kron(patches, np.ones((4, 4), np.int64))[: size[0], : size[1]]
    options = {
        "overlap_threshold": float(rng.choice([0.0, 0.3, 0.5, 0.7, 1.0])),
        "stuff_area_limit": int(rng.choice([0, 1, 5, 20])),
        "score_threshold": float(rng.choice([0.0, 0.3])),
    }
    return instances, MaskCrops(crops, size), torch.from_numpy(semantic), options


@pytest.mark.parametrize("part", range(5))
def test_random_cases_are_merged_as_one_by_one(part):
    dropped = 0
    for seed in range(100 * part, 100 * part + 100):
        instances, crops, semantic, options = random_case(seed)
        expected, segments = one_by_one(instances, semantic, space(), **options)
        cropped = Instances(instances.image_size, **instances.get_fields())
        cropped.pred_masks = crops
        for given, labels in (instances, semantic), (cropped, semantic.to(torch.uint8)):
            panoptic, found = merge_panoptic(given, labels, space(), **options)
            assert panoptic.dtype == torch.int32
            assert torch.equal(panoptic, expected) and found == segments
        dropped += len(instances) - sum(s["isthing"] for s in segments)
    assert dropped > 100


def test_random_cases_are_merged_as_by_detectron2():
    """Its rules assume that label 0 stands for all things, and every other label for stuff."""
    stuff_and_things = space("stuff_and_things")
    for seed in range(200):
        instances, _, semantic, options = random_case(seed)
        semantic = semantic % stuff_and_things.num_semantic
        options["stuff_area_limit"] = max(options["stuff_area_limit"], 1)
        # at 1.0 Detectron2 lists instances without visible pixels
        options["overlap_threshold"] = min(options["overlap_threshold"], 0.7)
        expected, segments = combine_semantic_and_instance_outputs(
            instances, semantic, *options.values()
        )
        panoptic, found = merge_panoptic(instances, semantic, stuff_and_things, **options)
        assert torch.equal(panoptic, expected)
        keys = ("id", "isthing", "score", "instance_id")
        assert [[s.get(k) for k in keys] for s in found] == [
            [s.get(k) for k in keys] for s in segments
        ]
        for ours, theirs in zip(found, segments, strict=True):
            category = ours["category_id"]
            if not ours["isthing"]:  # Detectron2 gives stuff its semantic label
                category = stuff_and_things.semantic_to_contiguous.tolist().index(category)
            assert category == theirs["category_id"]
