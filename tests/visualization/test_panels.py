"""Drawing panoptic segmentations, and arranging pictures on sheets."""

import base64
import io

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from oracle import perfect_output
from PIL import Image

import eseg_d2  # noqa: F401, registers
from eseg_d2.data.images import read_image
from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.visualization import contact_sheet, draw_panoptic, side_by_side
from eseg_d2.visualization.panels import data_uri


@pytest.mark.parametrize("kind", ["cityscapes", "coco"])
def test_ground_truth_and_prediction_are_drawn_alike(scenes, kind):
    name = f"scenes_{kind}_panoptic_val"
    truth = GroundTruth(name)
    metadata = MetadataCatalog.get(name)
    file_name, record = next(iter(truth.records.items()))
    image = read_image(file_name, "RGB")
    drawn = draw_panoptic(
        image, truth.segment_map(file_name), record["segments_info"], metadata, width=256
    )
    assert drawn.shape == (128, 256, 3) and drawn.dtype == np.uint8
    segment_map, segments = perfect_output(truth, file_name)["panoptic_seg"]
    predicted = draw_panoptic(image, segment_map.numpy(), segments, metadata, width=256)
    assert predicted.shape == drawn.shape
    # both drawings differ more from the image than from each other
    plain = np.kron(image, np.ones((2, 2, 1), np.uint8)).astype(int)
    change = np.abs(drawn.astype(int) - plain).mean()
    assert change > 2 * np.abs(drawn.astype(int) - predicted).mean()


def test_image_without_segments_can_be_drawn(scenes):
    metadata = MetadataCatalog.get("scenes_cityscapes_panoptic_val")
    image = np.full((30, 50, 3), 200, dtype=np.uint8)
    drawn = draw_panoptic(image, np.zeros((30, 50), int), [], metadata, width=100)
    assert drawn.shape == (60, 100, 3)


def test_objects_of_a_class_differ_in_colour_reproducibly(scenes):
    metadata = MetadataCatalog.get("scenes_cityscapes_panoptic_val")
    image = np.zeros((60, 200, 3), np.uint8)
    segments = np.zeros((60, 200), int)
    segments[:, :100], segments[:, 100:] = 1, 2
    info = [{"id": i, "category_id": 13, "isthing": True} for i in (1, 2)]
    first, again = (draw_panoptic(image, segments, info, metadata, width=200) for _ in range(2))
    assert (first == again).all()
    assert (first[50, 20] != first[50, 120]).any()


def test_panels_side_by_side_must_have_one_height():
    panel = np.zeros((40, 60, 3), dtype=np.uint8)
    row = side_by_side({"a": panel, "b": panel})
    assert row.shape[0] > 40 and row.shape[1] > 120
    with pytest.raises(ValueError, match=r"heights \[40, 41\]"):
        side_by_side({"a": panel, "b": np.zeros((41, 60, 3), np.uint8)})


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
def test_sheets_fit_and_fill_a_screen(count):
    pictures = [np.full((346, 1950, 3), 10 * i % 250, np.uint8) for i in range(count)]
    sheet = contact_sheet(pictures)
    height, width = sheet.shape[:2]
    assert height <= 1000 and width <= 1600 and (height > 900 or width > 1500)
    shown = set(np.unique(sheet[:, :, 0]).tolist()) - {255}
    assert shown == {10 * i % 250 for i in range(count)}


def test_sheets_take_pictures_of_several_sizes():
    pictures = [np.zeros((40, 60, 3), np.uint8), np.full((80, 30, 3), 9, np.uint8)]
    sheet = contact_sheet(pictures, width=200, height=100)
    assert sheet.shape[0] <= 100 and sheet.shape[1] <= 200
    assert set(np.unique(sheet).tolist()) == {0, 9, 255}


def test_data_uri_holds_a_jpeg():
    uri = data_uri(np.full((96, 96, 3), 100, np.uint8))
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 96)
