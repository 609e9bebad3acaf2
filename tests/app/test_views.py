import base64
import zlib

import numpy as np
import pytest

from eseg_d2.app.views import make_views
from eseg_d2.inference import InstanceResults, Prediction
from eseg_d2.inference.classes import ClassTable

CLASSES = ClassTable(("road", "car"), ((128, 64, 128), (0, 0, 142)))


def ids_of(view, size):
    return np.frombuffer(zlib.decompress(base64.b64decode(view["ids"])), "<u2").reshape(size)


def objects(masks):
    return InstanceResults(
        boxes=np.array([[0, 0, 2, 2], [1, 1, 4.4, 9]], np.float32),
        scores=np.array([0.9, 0.5], np.float32),
        classes=np.array([1, 1]),
        masks=masks,
    )


def test_boxes_without_masks_the_best_on_top():
    prediction = Prediction("instance", (4, 6), CLASSES.names, [], instances=objects(None))
    view = make_views(prediction, CLASSES)["instances"]
    ids = ids_of(view, (4, 6))
    best = 1 + ["id 1," in s["text"] for s in view["segments"]].index(True)
    assert (ids[:2, :2] == best).all() and (ids[2:, 1:4] == 3 - best).all() and ids[0, 5] == 0
    (row,) = view["legend"]
    assert (row["name"], row["count"]) == ("car", 2)
    assert row["share"] == pytest.approx((ids > 0).mean())
    colors = [s["color"] for s in view["segments"]]
    assert colors[0] != colors[1] and view["outlines"]


def test_no_object():
    nothing = InstanceResults(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), None)
    prediction = Prediction("instance", (2, 3), CLASSES.names, [], instances=nothing)
    view = make_views(prediction, CLASSES)["instances"]
    assert view["segments"] == view["legend"] == [] and not ids_of(view, (2, 3)).any()


def test_all_things_of_the_semantic_head_are_no_class():
    semantic = np.array([[0, 255, 255]], np.uint8)
    prediction = Prediction("semantic", (1, 3), CLASSES.names, [], semantic=semantic)
    view = make_views(prediction, CLASSES)["semantic"]
    assert ids_of(view, (1, 3)).tolist() == [[1, 0, 0]]
    assert view["segments"][0]["text"] == "road, class 0, 33.3 % of the pixels"
    assert view["segments"][0]["color"] == [128, 64, 128]
