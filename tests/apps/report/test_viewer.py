import numpy as np

from eseg_d2.apps.report.viewer import LegendEntry, PictureBudget, legend_of, percent, short_path


def test_pictures_that_find_no_room_are_counted_and_leave_it_to_smaller_ones():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    flat = np.zeros((8, 8, 3), np.uint8)
    budget = PictureBudget(planned=3, left=8_000)
    assert budget.panels({"a": noise, "b": noise}) is None
    assert budget.left_out == 1 and budget.left == 8_000
    panels = budget.panels({"c": flat})
    assert [panel.caption for panel in panels] == ["c"]
    assert budget.left == 8_000 - len(panels[0].uri) and budget.left_out == 1


def test_pictures_are_wide_where_the_page_has_room():
    few, many = PictureBudget(planned=36), PictureBudget(planned=360)
    for width, expected in ((300, (640, 640)), (800, (800, 640)), (2048, (1024, 640))):
        image = np.zeros((10, width, 3), np.uint8)
        assert (few.width(image), many.width(image)) == expected


def test_legend_has_the_largest_class_first_and_void_last():
    classes = np.array([[0, 1, 1, 255], [2, 1, 1, 255]])
    void = LegendEntry("void", (9, 9, 9))
    entries = legend_of(classes, ["a", "b", "c", "d"], [(i, i, i) for i in range(4)], void)
    shares = [(entry.name, entry.share) for entry in entries]
    assert shares == [("b", "50.0 %"), ("a", "12.5 %"), ("c", "12.5 %"), ("void", "25.0 %")]


def test_small_shares_are_not_shown_as_none():
    assert [percent(x) for x in (0, 0.0001, 0.5)] == ["0.0 %", "< 0.1 %", "50.0 %"]


def test_paths_are_short_within_their_folder_only():
    assert short_path("/d/val/a.png", "/d") == "val/a.png"
    assert short_path("/e/a.png", "/d") == short_path("/e/a.png", None) == "/e/a.png"
