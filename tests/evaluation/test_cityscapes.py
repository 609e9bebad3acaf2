"""Prediction files and the official Cityscapes scores, for perfect and degraded predictions."""

import json
import math

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from oracle import evaluate_perfect

from eseg_d2.data.panoptic_png import read_panoptic_png
from eseg_d2.evaluation import (
    CityscapesOfficialEvaluator,
    PanopticQualityEvaluator,
    PredictionWriter,
    SemanticEvaluator,
)
from eseg_d2.evaluation.ground_truth import GroundTruth

NAME = "scenes_cityscapes_panoptic_val"


def run(evaluator, name, degrade=lambda output: output):
    return evaluate_perfect(evaluator, GroundTruth(name), degrade)


def test_perfect_predictions_have_official_scores_of_100(scenes, tmp_path):
    scores = run(CityscapesOfficialEvaluator(NAME, output_dir=str(tmp_path)), NAME)["cityscapes"]
    assert set(scores) >= {"IoU", "iIoU", "IoU_sup", "iIoU_sup", "AP", "AP50", "PQ", "PQ_st"}
    for name, value in scores.items():
        # the official AP leaves out instances of fewer than 100 pixels
        assert math.isnan(value) or value == pytest.approx(100, abs=1e-6), name
    assert not math.isnan(scores["PQ"]) and not math.isnan(scores["IoU"])


def shifted(output):
    """Shift every map of an output by 3 columns."""
    segment_map, segments = output["panoptic_seg"]
    segment_map = torch.roll(segment_map, 3, 1)
    present = set(segment_map.unique().tolist())
    output["panoptic_seg"] = segment_map, [s for s in segments if s["id"] in present]
    output["sem_seg"] = torch.roll(output["sem_seg"], 3, 2)
    output["instances"].pred_masks = torch.roll(output["instances"].pred_masks, 3, 2)
    return output


def test_official_scores_equal_those_of_our_evaluators(scenes, tmp_path):
    official = run(CityscapesOfficialEvaluator(NAME, output_dir=str(tmp_path)), NAME, shifted)
    official = official["cityscapes"]
    ours = run(PanopticQualityEvaluator(NAME), NAME, shifted)["panoptic_seg"]
    for figure in ours:
        assert official[figure] == pytest.approx(ours[figure], abs=1e-9), figure
    semantic = run(SemanticEvaluator(NAME), NAME, shifted)["sem_seg"]
    assert official["IoU"] == pytest.approx(semantic["mIoU"], abs=1e-4)
    assert 0 < official["PQ"] < 99 and 0 < official["IoU"] < 99


def test_semantic_model_gets_only_semantic_scores(scenes, tmp_path):
    evaluator = CityscapesOfficialEvaluator(NAME, output_dir=str(tmp_path))
    scores = run(evaluator, NAME, lambda output: {"sem_seg": output["sem_seg"]})["cityscapes"]
    assert set(scores) == {"IoU", "iIoU", "IoU_sup", "iIoU_sup"}
    assert not (tmp_path / "panoptic").exists() and not (tmp_path / "panoptic.json").exists()


def test_missing_ground_truth_is_named(scenes, tmp_path, monkeypatch):
    evaluator = CityscapesOfficialEvaluator(NAME, output_dir=str(tmp_path))
    monkeypatch.setitem(vars(MetadataCatalog.get(NAME)), "gt_dir", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere.*TEST.OFFICIAL_CITYSCAPES False"):
        run(evaluator, NAME)


@pytest.mark.parametrize("kind", ["cityscapes", "coco"])
def test_prediction_files_hold_dataset_ids(scenes, tmp_path, kind):
    name = f"scenes_{kind}_panoptic_val"
    assert run(PredictionWriter(name, output_dir=str(tmp_path)), name) is None
    metadata = MetadataCatalog.get(name)
    with open(metadata.panoptic_json) as f:
        truth = {a["image_id"]: a for a in json.load(f)["annotations"]}
    with open(tmp_path / "panoptic.json") as f:
        predicted = {a["image_id"]: a for a in json.load(f)["annotations"]}
    assert predicted.keys() == truth.keys()
    for image_id, annotation in predicted.items():
        expected = read_panoptic_png(f"{metadata.panoptic_root}/{truth[image_id]['file_name']}")
        got = read_panoptic_png(str(tmp_path / "panoptic" / annotation["file_name"]))
        category = {s["id"]: s["category_id"] for s in truth[image_id]["segments_info"]}
        crowd = {s["id"] for s in truth[image_id]["segments_info"] if s["iscrowd"]}
        for segment in annotation["segments_info"]:
            (covered,) = np.unique(expected[got == segment["id"]])
            assert segment["category_id"] == category[covered] and covered not in crowd
        semantic = cv2.imread(
            str(tmp_path / "semantic" / annotation["file_name"]), cv2.IMREAD_UNCHANGED
        )
        known = np.isin(expected, list(category))
        table = np.vectorize(lambda i, category=category: category.get(i, 0))
        assert semantic.dtype == np.uint8 and (semantic == table(expected))[known].all()
    assert (tmp_path / "instance").exists() == (kind == "cityscapes")


def test_stuff_and_things_have_no_semantic_file(scenes, tmp_path):
    name = "scenes_coco_panoptic_val"
    writer = PredictionWriter(name, output_dir=str(tmp_path), semantic_classes="stuff_and_things")
    run(writer, name)
    assert (tmp_path / "panoptic.json").exists() and not (tmp_path / "semantic").exists()
