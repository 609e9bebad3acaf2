"""Confusion matrices: shares, largest mistakes and invalid content."""

import numpy as np
import pytest

from eseg_d2.apps.report.confusion import Confusion, Mistake

CONTENT = {
    "classes": ["road", "none", "car", "sky"],
    "pixels": [[90, 0, 10, 0], [0, 0, 0, 0], [30, 0, 10, 0], [0, 0, 0, 0]],
}


def test_rows_sum_to_one_and_absent_classes_are_left_out():
    confusion = Confusion.from_json(CONTENT)
    assert np.isnan(confusion.shares()[1]).all()
    shown = confusion.occurring()
    assert shown.classes == ("road", "car")
    np.testing.assert_allclose(shown.shares(), [[0.9, 0.1], [0.75, 0.25]])


def test_largest_mistakes_come_first_and_correct_pixels_are_left_out():
    confusion = Confusion.from_json(CONTENT)
    mistakes = [Mistake("car", "road", 0.75, 30), Mistake("road", "car", 0.1, 10)]
    assert confusion.largest(5) == mistakes
    assert confusion.largest(1) == mistakes[:1]


@pytest.mark.parametrize(
    "content",
    [
        {"classes": ["a", "b"], "pixels": [[1, 2]]},
        {"classes": ["a"], "pixels": [[-1]]},
        {"classes": ["a"], "pixels": [["x"]]},
        {"classes": ["a", "b"], "pixels": [[1, 2], [3]]},
        {"pixels": [[1]]},
        {"classes": 3, "pixels": [[1]]},
    ],
)
def test_invalid_matrix_is_refused(content):
    with pytest.raises(ValueError, match="expected"):
        Confusion.from_json(content)
