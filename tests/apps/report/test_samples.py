"""Samples of a data set, exactly as the mapper gives them."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances

from eseg_d2.apps.report import samples
from eseg_d2.apps.report.samples import draw_samples, targets_as_panoptic
from eseg_d2.data.datasets.panoptic_format import dataset_dicts
from eseg_d2.engine import load_config
from eseg_d2.structures.label_space import LabelSpace

TRAIN = "scenes_cityscapes_panoptic_train"


@pytest.fixture
def cfg(root, scenes):
    return load_config(
        str(root / "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"),
        ["INPUT.MIN_SIZE_TRAIN", "(48,)", "MODEL.DEVICE", "cpu"],
    )


def test_samples_are_complete_augmented_and_chosen_by_the_seed(cfg):
    found = draw_samples(cfg, TRAIN, 5, seed=1)
    assert len(found.samples) == len(found.rows) == 5
    assert len({sample.title for sample in found.samples}) == 5
    assert not any(sample.title.startswith("/") for sample in found.samples)
    captions = ["image", "semantic labels", "instances", "panoptic"]
    for sample in found.samples:
        assert [panel.caption for panel in sample.panels] == captions
        assert "96x48 pixels of 128x64" in sample.facts[0]
    assert sum(c.share for c in found.classes) == pytest.approx(1)
    again, other = (draw_samples(cfg, TRAIN, 5, seed=seed) for seed in (1, 2))
    assert again.samples == found.samples
    assert [s.title for s in other.samples] != [s.title for s in found.samples]


def test_images_keep_their_size_without_augmentation(cfg):
    found = draw_samples(cfg, TRAIN, 99, augment=False)
    assert len(found.samples) == 12 and not found.augmentations
    assert all("128x64 pixels of 128x64" in sample.facts[0] for sample in found.samples)
    by_name = {c.name: c for c in found.classes}
    assert by_name["road"].samples == 12 and by_name["train"].samples == 0


def test_samples_for_semantic_models_have_no_instances(cfg):
    cfg.MODEL.MASK_ON = False
    (sample,) = draw_samples(cfg, TRAIN, 1).samples
    assert [panel.caption for panel in sample.panels] == ["image", "semantic labels"]


def test_unreadable_image_is_reported_and_the_rest_is_shown(cfg, tmp_path, monkeypatch):
    broken = tmp_path / "broken.png"
    broken.touch()
    first, *rest = dataset_dicts(TRAIN)
    records = [{**first, "file_name": str(broken)}, *rest]
    monkeypatch.setattr(samples, "dataset_dicts", lambda name: records)
    found = draw_samples(cfg, TRAIN, 99)
    assert len(found.samples) == 11
    (problem,) = found.problems
    assert str(broken) in problem


def test_unregistered_or_missing_data_set_is_refused(cfg):
    with pytest.raises(ValueError, match="not registered"):
        draw_samples(cfg, "no_such_data_set", 1)
    with pytest.raises(FileNotFoundError, match="is not there"):
        draw_samples(cfg, "coco_2017_val", 1)


def test_targets_are_merged_into_one_panoptic_map():
    space = LabelSpace(("road", "car", "sky"), (0, 1, 2), (1,))
    labels = np.array([[0, 1, 1, 1], [0, 1, 2, 255]])
    instances = Instances((2, 4))
    masks = torch.zeros(2, 2, 4, dtype=torch.bool)
    masks[0, 0, 1] = masks[1, 0, 2] = True  # (0, 3) and (1, 1) are a crowd
    instances.gt_masks, instances.gt_classes = BitMasks(masks), torch.tensor([0, 0])
    segment_map, segments = targets_as_panoptic(labels, instances, space)
    classes = {s["id"]: (s["category_id"], s["isthing"]) for s in segments}
    assert [classes.get(i, (None,))[0] for i in segment_map.ravel()] == [0, 1, 1, 1, 0, 1, 2, None]
    assert len({segment_map[0, 1], segment_map[0, 2], segment_map[0, 3]}) == 3
    assert segment_map[0, 3] == segment_map[1, 1] and segment_map[1, 3] == 0
    assert [is_thing for _, is_thing in classes.values()] == [False, True, False, True, True]


def test_things_of_a_single_semantic_class_are_shown_as_instances():
    space = LabelSpace(("road", "car"), (0, 1), (1,), 255, "stuff_and_things")
    instances = Instances((1, 3))
    instances.gt_masks = BitMasks(torch.tensor([[[False, True, False]]]))
    instances.gt_classes = torch.tensor([0])
    segment_map, segments = targets_as_panoptic(np.array([[1, 0, 0]]), instances, space)
    assert [s["category_id"] for s in segments] == [0, 1]
    assert segment_map.tolist() == [[1, 2, 0]]
