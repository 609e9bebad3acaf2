"""Segment maps, colours and legends that the page shows."""

import base64
import zlib

import numpy as np
import pytest
import torch

from eseg_d2.apps.page.segment_maps import make_views
from eseg_d2.inference import InstanceResults, Prediction
from eseg_d2.inference.prediction import ClassTable
from eseg_d2.structures.mask_crops import MaskCrops

CLASSES = ClassTable(("road", "car"), ((128, 64, 128), (0, 0, 142)))


def ids_of(view, size):
    return np.frombuffer(zlib.decompress(base64.b64decode(view["ids"])), "<u2").reshape(size)


def objects(masks):
    return InstanceResults(
        boxes=np.array([[0, 0, 2, 2], [1, 1, 4.4, 9]], np.float32),
        scores=np.array([0.9, 0.5], np.float32),
        classes=np.array([1, 1]),
        crops=None if masks is None else MaskCrops.from_tensor(torch.from_numpy(masks)),
    )


def test_boxes_without_masks_are_drawn_with_the_best_on_top():
    prediction = Prediction("instance", (4, 6), CLASSES.names, [], instances=objects(None))
    view = make_views(prediction, CLASSES)["instances"]
    ids = ids_of(view, (4, 6))
    best = ["id 1," in s["text"] for s in view["segments"]].index(True)
    assert (ids[:2, :2] == best).all() and (ids[2:, 1:4] == 3 - best).all() and ids[0, 5] == 0
    rows = {row["name"]: row for row in view["legend"]}
    assert rows["car"]["count"] == 2
    assert rows["car"]["share"] == pytest.approx((ids > 0).mean())
    assert rows["no object"]["share"] == pytest.approx((ids == 0).mean())
    colors = [s["color"] for s in view["segments"]]
    assert colors[0] is None and colors[1] != colors[2] and view["outlines"]


def test_view_without_objects():
    nothing = InstanceResults(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), None)
    prediction = Prediction("instance", (2, 3), CLASSES.names, [], instances=nothing)
    view = make_views(prediction, CLASSES)["instances"]
    assert [row["name"] for row in view["legend"]] == ["no object"]
    assert len(view["segments"]) == 1 and not ids_of(view, (2, 3)).any()


def test_pixels_of_things_have_no_semantic_class():
    semantic = np.array([[0, 255, 255]], np.uint8)
    prediction = Prediction("semantic", (1, 3), CLASSES.names, [], semantic=semantic)
    view = make_views(prediction, CLASSES)["semantic"]
    assert ids_of(view, (1, 3)).tolist() == [[1, 0, 0]]
    assert view["segments"][1]["text"] == "road, class 0, 33.3 % of the pixels"
    assert view["segments"][1]["color"] == [128, 64, 128]
    assert view["segments"][0]["text"] == "objects of any class"


def test_void_has_its_share_and_colour_in_the_legend():
    panoptic = np.array([[1, 1, 1, 0]], np.int32)
    segment = {"id": 1, "class_id": 0, "isthing": False, "score": None}
    prediction = Prediction("panoptic", (1, 4), CLASSES.names, [segment], panoptic=panoptic)
    view = make_views(prediction, CLASSES)["panoptic"]
    assert [(row["name"], row["share"]) for row in view["legend"]] == [
        ("road", 0.75),
        ("void", 0.25),
    ]
    void = view["legend"][1]
    assert void["color"] == view["segments"][0]["color"] == [0, 0, 0]
    assert void["class_id"] == view["segments"][0]["class_id"] == -1
