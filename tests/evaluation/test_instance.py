"""Box and mask AP: perfect and wrong predictions, and the fast implementation."""

import json

import pytest
import torch
from oracle import evaluate_perfect

import eseg_d2  # noqa: F401, registers
from eseg_d2.evaluation import instance
from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.evaluation.instance import InstanceEvaluator


@pytest.fixture(params=["scenes_cityscapes_panoptic_val", "scenes_coco_panoptic_val"])
def name(request, scenes):
    return request.param


def evaluate(name, folder, change=lambda instances: instances):
    evaluator = InstanceEvaluator(name, output_dir=str(folder), distributed=False)
    return evaluate_perfect(
        evaluator, GroundTruth(name), lambda output: {"instances": change(output["instances"])}
    )


def test_perfect_predictions_score_100(name, tmp_path):
    results = evaluate(name, tmp_path)
    for task in "bbox", "segm":
        assert results[task]["AP"] == pytest.approx(100, abs=1e-6)
        assert results[task]["AP-person"] == pytest.approx(100, abs=1e-6)
    written = json.loads((tmp_path / f"{name}_instances.json").read_text())
    truth = GroundTruth(name)
    things = [
        s for record in truth.records.values() for s in record["segments_info"] if s["isthing"]
    ]
    assert len(written["annotations"]) == len(things)
    assert [a["area"] for a in written["annotations"]] == [s["area"] for s in things]


def test_fast_evaluation_equals_pycocotools(name, tmp_path, monkeypatch):
    rng = torch.Generator().manual_seed(0)

    def degraded(instances):
        instances = instances[torch.rand(len(instances), generator=rng) < 0.7]
        instances.scores = torch.rand(len(instances), generator=rng)
        instances.pred_masks = torch.roll(instances.pred_masks, 2, 2)
        instances.pred_boxes.tensor += 2
        return instances

    faster, used = instance._faster_coco_eval(), []

    def spy(*args):
        used.append(args[-1])
        return faster(*args)

    monkeypatch.setattr(instance, "_faster_coco_eval", lambda: spy)
    fast = evaluate(name, tmp_path, degraded)
    assert used == ["bbox", "segm"]
    rng.manual_seed(0)
    monkeypatch.setattr(instance, "_faster_coco_eval", lambda: None)
    plain = evaluate(name, tmp_path, degraded)
    assert 0 < plain["segm"]["AP"] < 100
    for task in "bbox", "segm":
        for figure, value in plain[task].items():
            assert fast[task][figure] == pytest.approx(value, abs=1e-9, nan_ok=True), figure


def test_wrong_classes_score_low_and_no_detections_nan(name, tmp_path):
    def shifted(instances):
        things = torch.tensor(GroundTruth(name).label_space.thing_ids)
        place = torch.searchsorted(things, instances.pred_classes)
        instances.pred_classes = things[(place + 1) % len(things)]
        return instances

    assert evaluate(name, tmp_path, shifted)["segm"]["AP"] < 30
    nothing = evaluate(name, tmp_path, lambda instances: instances[:0])
    assert nothing["segm"]["AP"] != nothing["segm"]["AP"]  # NaN, as in Detectron2
