"""Masks stored as crops."""

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from eseg_d2.structures.mask_crops import MaskCrops

SIZE = (31, 45)
sides = st.tuples(st.floats(0, 44), st.floats(0, 30), st.floats(0.01, 50), st.floats(0.01, 50))


@settings(max_examples=60)
@given(boxes=st.lists(sides, max_size=5), cells=st.sampled_from([1, 7, 28]))
def test_masks_are_pasted_as_by_detectron2(boxes, cells):
    masks = torch.rand(len(boxes), cells, cells)
    boxes = torch.tensor([(x, y, min(x + w, 45), min(y + h, 31)) for x, y, w, h in boxes])
    boxes = boxes.reshape(-1, 4)
    crops = MaskCrops.paste(masks, boxes, SIZE)
    expected = paste_masks_in_image(masks, boxes, SIZE).bool()
    assert torch.equal(crops.tensor(), expected)
    for i, mask in enumerate(expected):
        assert torch.equal(crops.full(i), mask)
    for (_, _, crop), box in zip(crops.crops, boxes, strict=True):
        assert crop.shape[0] <= box[3] - box[1] + 4 and crop.shape[1] <= box[2] - box[0] + 4


def test_pasting_in_strips_gives_the_same_masks(monkeypatch):
    masks, boxes = torch.rand(1, 28, 28), torch.tensor([[0.0, 0.0, 45.0, 31.0]])
    whole = MaskCrops.paste(masks, boxes, SIZE).tensor()
    monkeypatch.setattr("eseg_d2.structures.mask_crops.PASTE_PIXELS", 100)
    assert torch.equal(MaskCrops.paste(masks, boxes, SIZE).tensor(), whole)
    assert 0.2 < whole.float().mean() < 0.8


def test_crops_can_be_indexed_as_a_field_of_instances():
    masks = torch.rand(4, 3, 5) < 0.5
    instances = Instances((3, 5), pred_masks=MaskCrops.from_tensor(masks))
    instances.scores = torch.tensor([0.1, 0.9, 0.5, 0.7])
    for chosen in instances.scores > 0.3, torch.argsort(instances.scores), slice(1, 3):
        found = instances[chosen].to("cpu").pred_masks
        assert torch.equal(found.tensor(), masks[chosen])
    assert MaskCrops.from_tensor(masks[:0]).tensor().shape == (0, 3, 5)
