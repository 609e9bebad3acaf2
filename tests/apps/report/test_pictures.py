"""Label maps drawn as pictures, with their colours, legends and sizes."""

import numpy as np
from detectron2.data.catalog import Metadata

from eseg_d2.apps.report.pictures import (
    ERROR_COLORS,
    NOT_LABELLED,
    LegendEntry,
    PictureBudget,
    error_map,
    legend_of,
    paint_classes,
    percent,
    semantic_colors,
    short_path,
    with_colors,
)
from eseg_d2.structures.label_space import LabelSpace

IMAGE = np.full((96, 96, 3), 100, np.uint8)
SPACE = LabelSpace(names=("road", "car", "sky"), dataset_ids=(7, 8, 9), thing_ids=(1,))


def colors_in(picture):
    return {tuple(color) for color in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


def test_errors_are_marked_by_kind_and_void_is_striped():
    truth, predicted = np.zeros((2, 96, 96), int)
    truth[:24] = -1
    predicted[:48] = 2  # wrong, but void in its upper half
    predicted[48:72] = -1
    picture = error_map(IMAGE, truth, predicted)
    wrong, nothing, void = (np.array(color) for color in ERROR_COLORS.values())
    for rows, color in ((slice(24, 48), wrong), (slice(48, 72), nothing)):
        assert (np.abs(picture[rows] - (0.85 * color + 15)) < 16).all()
    right = picture[72:]
    assert (right == right[0, 0]).all() and right.std() == 0  # grey
    striped = (picture[:24] != right[0, 0]).any(axis=2)
    assert 0.3 < striped.mean() < 0.7 and (picture[:24][striped][:, 2] > 150).all()


def test_classes_are_painted_in_their_colours_and_void_is_striped():
    classes = np.zeros((96, 96), int)
    classes[:, 48:] = 255
    picture = paint_classes(IMAGE, classes, [(200, 0, 0)])
    assert colors_in(picture[:, :48]) == {(165, 35, 35)}
    assert NOT_LABELLED in colors_in(picture[:, 48:])
    assert len(colors_in(picture[:, 48:])) == 2


def test_data_set_without_colours_gets_distinct_ones():
    metadata = with_colors(Metadata(name="x", stuff_classes=SPACE.names), SPACE)
    assert len(set(metadata.stuff_colors)) == 3
    assert metadata.stuff_classes == SPACE.names
    known = Metadata(thing_colors=[(1, 1, 1)] * 3, stuff_colors=[[2, 2, 2]] * 3)
    assert with_colors(known, SPACE).stuff_colors == [(2, 2, 2), (1, 1, 1), (2, 2, 2)]


def test_single_semantic_class_of_all_things_has_a_colour():
    space = LabelSpace(SPACE.names, SPACE.dataset_ids, SPACE.thing_ids, 255, "stuff_and_things")
    metadata = with_colors(Metadata(), space)
    colors = semantic_colors(metadata, space)
    assert colors[1:] == [metadata.stuff_colors[0], metadata.stuff_colors[2]]
    assert len(set(colors)) == 3


def test_pictures_over_budget_are_counted_and_leave_room_for_smaller_ones():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    flat = np.zeros((8, 8, 3), np.uint8)
    budget = PictureBudget(planned=3, left=8_000)
    assert budget.panels({"a": noise, "b": noise}) is None
    assert budget.left_out == 1 and budget.left == 8_000
    panels = budget.panels({"c": flat})
    assert [panel.caption for panel in panels] == ["c"]
    assert budget.left == 8_000 - len(panels[0].uri) and budget.left_out == 1


def test_pictures_are_wider_if_few_share_the_page():
    few, many = PictureBudget(planned=36), PictureBudget(planned=360)
    for width, expected in ((300, (640, 640)), (800, (800, 640)), (2048, (1024, 640))):
        image = np.zeros((10, width, 3), np.uint8)
        assert (few.width(image), many.width(image)) == expected


def test_legend_lists_the_largest_class_first_and_void_last():
    classes = np.array([[0, 1, 1, 255], [2, 1, 1, 255]])
    void = LegendEntry("void", (9, 9, 9))
    entries = legend_of(classes, ["a", "b", "c", "d"], [(i, i, i) for i in range(4)], void)
    shares = [(entry.name, entry.share) for entry in entries]
    assert shares == [("b", "50.0 %"), ("a", "12.5 %"), ("c", "12.5 %"), ("void", "25.0 %")]


def test_small_share_is_not_shown_as_zero():
    assert [percent(x) for x in (0, 0.0001, 0.5)] == ["0.0 %", "< 0.1 %", "50.0 %"]


def test_path_is_shortened_only_inside_its_folder():
    assert short_path("/d/val/a.png", "/d") == "val/a.png"
    assert short_path("/e/a.png", "/d") == short_path("/e/a.png", None) == "/e/a.png"
