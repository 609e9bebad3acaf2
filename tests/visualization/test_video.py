import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

import eseg_d2  # noqa: F401, registers
from eseg_d2.visualization.video import TrackingVisualizer

CAR, TRUCK = 13, 14


@pytest.fixture
def visualizer():
    return TrackingVisualizer(MetadataCatalog.get("scenes_cityscapes_panoptic_val"))


def draw_panoptic(visualizer, *cars):
    """The colours of cars, (x, class) each, drawn as 40 pixels wide segments."""
    segments = np.zeros((100, 300), np.int64)
    info = []
    for i, (x, category) in enumerate(cars, start=1):
        segments[30:80, x : x + 40] = i
        info.append({"id": i, "category_id": category, "isthing": True})
    frame = np.zeros((100, 300, 3), np.uint8)
    out = visualizer.draw_panoptic_seg_predictions(frame, torch.from_numpy(segments), info)
    image = out.get_image()
    return [tuple(image[32, x + 2].tolist()) for x, _ in cars]


def test_segments_keep_their_colours(visualizer):
    first = draw_panoptic(visualizer, (10, CAR), (60, CAR), (200, CAR))
    assert len(set(first)) == 3
    for step in 10, 20, 30:
        moved = draw_panoptic(visualizer, (10 + step, CAR), (60 + step, CAR), (200 + step, CAR))
        assert moved == first


def test_a_missed_object_is_remembered(visualizer):
    first = draw_panoptic(visualizer, (10, CAR), (200, CAR))
    draw_panoptic(visualizer, (200, CAR))
    assert draw_panoptic(visualizer, (15, CAR), (200, CAR)) == first


def test_another_class_takes_no_colour(visualizer):
    (first,) = draw_panoptic(visualizer, (10, CAR))
    (other,) = draw_panoptic(visualizer, (10, TRUCK))
    assert other != first


def test_neighbouring_boxes_keep_apart(visualizer):
    def colors(*left):
        boxes = [[x, 500, x + 50, 550] for x in left]
        instances = Instances((800, 800))
        instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
        instances.scores = torch.ones(len(boxes))
        instances.pred_classes = torch.full((len(boxes),), CAR)
        frame = np.zeros((800, 800, 3), np.uint8)
        image = visualizer.draw_instance_predictions(frame, instances).get_image()
        return [tuple(image[540, x].tolist()) for x in left]

    first = colors(500, 600)
    (alone,) = colors(605)  # the left one has gone: the right one stays itself
    assert alone == first[1]
