"""Colours that follow objects through a video."""

import numpy as np
import pytest

from eseg_d2.visualization.video import ColorTracker

CAR, TRUCK = 13, 14


@pytest.fixture
def tracker():
    return ColorTracker()


def assign(tracker, *cars):
    """Return the colours of objects 40 pixels wide, each given by (x, class)."""
    masks = np.zeros((len(cars), 100, 300), bool)
    for mask, (x, _) in zip(masks, cars, strict=True):
        mask[30:80, x : x + 40] = True
    return tracker.assign([category for _, category in cars], masks)


def test_objects_keep_their_colours(tracker):
    first = assign(tracker, (10, CAR), (60, CAR), (200, CAR))
    assert len(set(first)) == 3
    for step in 10, 20, 30:
        moved = assign(tracker, (10 + step, CAR), (60 + step, CAR), (200 + step, CAR))
        assert moved == first


def test_missed_object_is_remembered_for_a_while(tracker):
    first = assign(tracker, (10, CAR), (200, CAR))
    for _ in range(7):
        assert assign(tracker, (200, CAR)) == first[1:]
    assert assign(tracker, (15, CAR), (200, CAR)) == first
    for _ in range(8):
        assign(tracker)
    assert not set(assign(tracker, (15, CAR), (200, CAR))) & set(first)


def test_object_of_another_class_gets_another_colour(tracker):
    (first,) = assign(tracker, (10, CAR))
    (other,) = assign(tracker, (10, TRUCK))
    assert other != first


def test_neighbouring_boxes_keep_their_colours(tracker):
    def colors(*left):
        boxes = np.array([[x, 500, x + 50, 550] for x in left], np.float32)
        return tracker.assign([CAR] * len(left), boxes)

    first = colors(500, 600)
    (alone,) = colors(605)  # the left one is gone, and the right one keeps its colour
    assert alone == first[1]
