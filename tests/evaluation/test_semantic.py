"""Semantic scores: those of Detectron2, perfect predictions and edge cases."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from oracle import evaluate_perfect

import eseg_d2  # noqa: F401, registers
from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.evaluation.semantic import SemanticEvaluator, iou_results

NAME = "scenes_cityscapes_panoptic_val"


def test_scores_equal_those_of_detectron2(scenes, monkeypatch):
    records = DatasetCatalog.get(NAME)
    for record in records:
        gt = record["file_name"].replace("leftImg8bit", "gtFine")
        record["sem_seg_file_name"] = gt.replace("_gtFine.png", "_gtFine_labelTrainIds.png")
    monkeypatch.setitem(DatasetCatalog.data, "test_sem_seg", lambda: records)
    names = MetadataCatalog.get(NAME).stuff_classes
    metadata = Metadata(name="test_sem_seg", stuff_classes=names, ignore_label=255)
    monkeypatch.setitem(MetadataCatalog.data, "test_sem_seg", metadata)

    def noisy(output):
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(output["sem_seg"].shape, generator=generator)
        return {"sem_seg": output["sem_seg"] + 1.2 * noise}

    theirs, ours = (
        evaluate_perfect(evaluator, GroundTruth(NAME), noisy)["sem_seg"]
        for evaluator in (
            SemSegEvaluator("test_sem_seg", distributed=False),
            SemanticEvaluator(NAME),
        )
    )
    assert 0 < ours["mIoU"] < 100
    for key, value in theirs.items():
        if not np.isnan(value):
            assert ours[key] == pytest.approx(value, abs=1e-9), key


@pytest.mark.parametrize("kind", ["cityscapes", "coco"])
@pytest.mark.parametrize("mode", ["all", "stuff_and_things"])
def test_perfect_predictions_score_100(scenes, kind, mode):
    name = f"scenes_{kind}_panoptic_val"
    evaluator = SemanticEvaluator(name, semantic_classes=mode)
    results = evaluate_perfect(evaluator, GroundTruth(name, mode))["sem_seg"]
    assert results["mIoU"] == results["pACC"] == results["mACC"] == 100
    assert results["fwIoU"] == pytest.approx(100)
    assert results["IoU-road"] == 100


def test_prediction_of_another_size_is_refused_with_its_image(scenes):
    file_name = next(iter(GroundTruth(NAME).records))
    with pytest.raises(ValueError, match=file_name):
        SemanticEvaluator(NAME).process(
            [{"file_name": file_name}], [{"sem_seg": torch.zeros(19, 2, 2)}]
        )


def test_scores_over_no_pixels_are_nan():
    results = iou_results(np.zeros((2, 2), dtype=int), ("a", "b"))
    assert np.isnan(results["mIoU"]) and np.isnan(results["pACC"])
