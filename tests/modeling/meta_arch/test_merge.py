import torch
from detectron2.structures import Instances

from eseg_d2.modeling.meta_arch.merge import merge_panoptic
from eseg_d2.structures.label_space import LabelSpace

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


def test_train_id_0_is_a_stuff_class_like_any_other():
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


def test_semantic_things_stay_void_in_both_modes():
    for mode, thing_label, stuff_label in ("all", 1, 2), ("stuff_and_things", 0, 2):
        semantic = torch.full((6, 6), thing_label)
        semantic[:3] = stuff_label  # sky
        panoptic, segments = merge_panoptic(
            instances_of((6, 6)), semantic, space(mode), stuff_area_limit=1
        )
        assert [s["category_id"] for s in segments] == [2]
        assert (panoptic[3:] == 0).all()


def test_the_better_of_two_overlapping_instances_wins():
    semantic = torch.zeros(8, 8, dtype=torch.int64)
    entries = (
        (slice(0, 4), slice(0, 8), 1, 0.7),  # half of it under the next one: kept, the rest of it
        (slice(2, 6), slice(0, 8), 3, 0.8),
        (slice(3, 6), slice(0, 8), 1, 0.6),  # wholly under it: dropped
        (slice(6, 8), slice(0, 8), 1, 0.4),  # below the threshold
    )
    panoptic, segments = merge_panoptic(instances_of((8, 8), *entries), semantic, space())
    assert [(s["instance_id"], s["area"]) for s in segments] == [(1, 32), (0, 16)]
    assert (panoptic[:2] == 2).all() and (panoptic[2:6] == 1).all() and (panoptic[6:] == 0).all()


def test_small_stuff_and_empty_masks_leave_nothing():
    semantic = torch.zeros(8, 8, dtype=torch.int64)
    semantic[0, :3] = 2
    empty = instances_of((8, 8), (slice(0, 0), slice(0, 0), 1, 0.9))
    panoptic, segments = merge_panoptic(empty, semantic, space(), stuff_area_limit=4)
    assert [s["category_id"] for s in segments] == [0]
    assert (panoptic[0, :3] == 0).all()
    assert panoptic.dtype == torch.int32
