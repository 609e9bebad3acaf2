import base64
import io

import numpy as np
from detectron2.data.catalog import Metadata
from PIL import Image

from eseg_d2.apps.report.pictures import (
    ERROR_COLORS,
    NOT_LABELLED,
    data_uri,
    error_map,
    paint_classes,
    semantic_colors,
    with_colors,
)
from eseg_d2.structures.label_space import LabelSpace

IMAGE = np.full((96, 96, 3), 100, np.uint8)
SPACE = LabelSpace(names=("road", "car", "sky"), dataset_ids=(7, 8, 9), thing_ids=(1,))


def colors_in(picture):
    return {tuple(color) for color in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


def test_errors_are_marked_by_kind_and_void_is_not_counted():
    truth, predicted = np.zeros((2, 96, 96), int)
    truth[:24] = -1
    predicted[:48] = 2  # wrong, but above it is void
    predicted[48:72] = -1
    picture = error_map(IMAGE, truth, predicted)
    wrong, nothing, void = (np.array(color) for color in ERROR_COLORS.values())
    for rows, color in ((slice(24, 48), wrong), (slice(48, 72), nothing)):
        assert (np.abs(picture[rows] - (0.85 * color + 15)) < 16).all()
    right = picture[72:]
    assert (right == right[0, 0]).all() and right.std() == 0  # grey
    striped = (picture[:24] != right[0, 0]).any(axis=2)
    assert 0.3 < striped.mean() < 0.7 and (picture[:24][striped][:, 2] > 150).all()


def test_classes_have_their_colours_and_void_stripes():
    classes = np.zeros((96, 96), int)
    classes[:, 48:] = 255
    picture = paint_classes(IMAGE, classes, [(200, 0, 0)])
    assert colors_in(picture[:, :48]) == {(165, 35, 35)}
    assert NOT_LABELLED in colors_in(picture[:, 48:])
    assert len(colors_in(picture[:, 48:])) == 2


def test_data_sets_without_colours_get_different_ones():
    metadata = with_colors(Metadata(name="x", stuff_classes=SPACE.names), SPACE)
    assert len(set(metadata.stuff_colors)) == 3
    assert metadata.stuff_classes == SPACE.names
    known = Metadata(thing_colors=[(1, 1, 1)] * 3, stuff_colors=[[2, 2, 2]] * 3)
    assert with_colors(known, SPACE).stuff_colors == [(2, 2, 2), (1, 1, 1), (2, 2, 2)]


def test_all_things_as_one_class_have_a_colour():
    space = LabelSpace(SPACE.names, SPACE.dataset_ids, SPACE.thing_ids, 255, "stuff_and_things")
    metadata = with_colors(Metadata(), space)
    colors = semantic_colors(metadata, space)
    assert colors[1:] == [metadata.stuff_colors[0], metadata.stuff_colors[2]]
    assert len(set(colors)) == 3


def test_pictures_are_jpegs_in_the_page():
    uri = data_uri(IMAGE)
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 96)
