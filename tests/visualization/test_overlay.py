"""Drawing segments and their labels over an image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eseg_d2.visualization.overlay import (
    Segment,
    _free_place,
    _overlap,
    _readable_on,
    paint_segments,
)

GREY = np.full((120, 240, 3), 100, np.uint8)
GREEN, RED, NAVY = (0, 200, 0), (220, 20, 60), (0, 0, 142)


def paint(*segments, width=240):
    """Draw rectangles (rows, columns, text, colour) on grey; only their labels are coloured."""
    index = np.zeros(GREY.shape[:2], int)
    for n, (rows, columns, *_) in enumerate(segments, start=1):
        index[rows, columns] = n
    looks = [Segment(text, color) for _, _, text, color in segments]
    return paint_segments(GREY, index, looks, width=width, alpha=0.0)


def pixels(picture, color) -> int:
    """Count the pixels of a colour."""
    return int((picture == color).all(2).sum())


def test_segments_are_blended_and_outlined_and_the_rest_unchanged():
    index = np.zeros((120, 240), int)
    index[20:100, 40:200] = 1
    picture = paint_segments(GREY, index, [Segment("x", GREEN)], width=240, alpha=0.5)
    assert picture.shape == GREY.shape and picture.dtype == np.uint8
    assert picture[5, 5].tolist() == [100, 100, 100]
    assert picture[90, 190].tolist() == [50, 150, 50]
    assert picture[20, 100].tolist() == picture[50, 40].tolist() == [255, 255, 240]
    assert paint_segments(GREY, index, [Segment("x", GREEN)], width=480).shape == (240, 480, 3)


@pytest.mark.parametrize("rows", [slice(0, 4), slice(116, 120)])
@pytest.mark.parametrize("columns", [slice(0, 4), slice(236, 240)])
def test_labels_at_the_border_are_complete(rows, columns):
    in_the_middle = paint((slice(58, 62), slice(118, 122), "traffic sign", GREEN))
    at_the_border = paint((rows, columns, "traffic sign", GREEN))
    assert pixels(at_the_border, GREEN) == pixels(in_the_middle, GREEN) > 200
    assert pixels(at_the_border, (0, 0, 0)) == pixels(in_the_middle, (0, 0, 0)) > 10


def test_label_makes_room_for_that_of_a_larger_segment():
    building = (slice(0, 120), slice(0, 240), "building", NAVY)
    car = (slice(55, 65), slice(100, 140), "car", RED)
    both = paint(building, car)
    assert pixels(both, RED) == pixels(paint(car), RED) > 100
    assert pixels(both, NAVY) == pixels(paint(building), NAVY) > 100


def test_labels_of_small_segments_are_left_out_for_lack_of_room():
    text = "a label as wide as all of the image"
    many = [(slice(i, i + 1), slice(0, 240 - i), text, (i + 10, 250, 0)) for i in range(0, 120, 4)]
    picture = paint(*many)
    labelled = [pixels(picture, color) > 0 for *_, color in many]
    assert labelled[0] and not labelled[-1]
    assert sum(labelled) * 12 <= 120  # the height of a label


def test_box_without_mask_is_drawn_and_labelled():
    segments = [Segment("car", RED, (20, 30, 220, 110))]
    picture = paint_segments(GREY, np.zeros((120, 240), int), segments, width=480)
    assert picture[60, 300].tolist() == picture[219, 100].tolist() == list(RED)
    assert pixels(picture, RED) > 2 * (400 + 160) + 100  # the outline and the label


def test_non_latin_letters_are_drawn():
    def written(text):
        return pixels(paint((slice(0, 120), slice(0, 240), text, NAVY)), (255, 255, 255))

    assert len({written(text) for text in ("Straße", "дорога", "δρόμος")}) == 3


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_text_contrasts_with_its_background(color):
    weights = (0.2126, 0.7152, 0.0722)

    def luminance(rgb):
        x = np.array(rgb) / 255
        return np.dot(np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4), weights)

    darker, lighter = sorted((luminance(color), luminance(_readable_on(color))))
    assert (lighter + 0.05) / (darker + 0.05) > 4.4


SIDE = st.integers(1, 80)


@given(st.lists(st.tuples(SIDE, SIDE, st.integers(0, 99), st.integers(0, 49), SIDE, SIDE)))
def test_labels_are_placed_inside_the_image_without_overlap(labels):
    taken = []
    for w, h, x, y, wide, tall in labels:
        box = (x, y, min(x + wide, 100), min(y + tall, 50))
        place = _free_place((w, h), box, ((box[0] + box[2]) // 2, y), (100, 50), taken)
        if place is None:
            continue
        x0, y0, x1, y1 = place
        assert x0 >= 0 and y0 >= 0 and x1 <= 100 and y1 <= 50 and (x1 - x0, y1 - y0) == (w, h)
        assert not any(_overlap(place, other) for other in taken)
        taken.append(place)
