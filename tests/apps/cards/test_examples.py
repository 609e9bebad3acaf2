"""Scores on the example images, of predictors whose scores are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from eseg_d2.apps.cards import example_metrics
from eseg_d2.data.panoptic_png import read_panoptic_png
from eseg_d2.utils.json_yaml import read_json


class Oracle:
    """Predicts the ground truth in its own class ids; ``change`` alters each label map."""

    def __init__(self, folder, names, change=lambda labels: labels):
        self.classes, self.folder, self.change = SimpleNamespace(names=names), folder, change
        self.content = read_json(folder / "truth" / "panoptic.json")
        self.names = {c["id"]: c["name"] for c in self.content["categories"]}

    def __call__(self, path):
        (annotation,) = (a for a in self.content["annotations"] if a["file_name"] == path.name)
        segments = read_panoptic_png(str(self.folder / "truth" / path.name))
        labels = np.full(segments.shape, 255, np.uint8)
        for segment in annotation["segments_info"]:
            name = self.names[segment["category_id"]]
            if name in self.classes.names:
                labels[segments == segment["id"]] = self.classes.names.index(name)
        return SimpleNamespace(label_map=lambda: self.change(labels))


@pytest.fixture
def folder(root):
    return root / "demo" / "images"


@pytest.mark.parametrize("names", [("car", "road", "sky"), ("unicorn", "person", "car", "road")])
def test_ground_truth_scores_100(folder, names):
    found = example_metrics(Oracle(folder, names), folder)
    assert found == {"mIoU": 100.0, "pixel_accuracy": 100.0}


def test_void_and_wrong_classes_lower_the_scores(folder):
    def truths_of(names):
        return [Oracle(folder, names)(folder / f"street_{n}.png").label_map() for n in (1, 2, 3)]

    def half(labels):
        """Make the left half void."""
        return np.where(np.arange(labels.shape[1]) < labels.shape[1] // 2, np.uint8(255), labels)

    names = ("road",)
    truths = truths_of(names)
    expected = sum((half(t) == 0).sum() for t in truths) / sum((t == 0).sum() for t in truths)
    found = example_metrics(Oracle(folder, names, half), folder)
    assert found == pytest.approx(dict.fromkeys(("mIoU", "pixel_accuracy"), 100 * expected))

    names = ("road", "sky")
    truths = truths_of(names)
    road, sky = (sum((t == k).sum() for t in truths) for k in (0, 1))
    found = example_metrics(Oracle(folder, names, np.zeros_like), folder)
    assert found["pixel_accuracy"] == pytest.approx(100 * road / (road + sky))
    assert found["mIoU"] == pytest.approx(50 * road / (road + sky))
