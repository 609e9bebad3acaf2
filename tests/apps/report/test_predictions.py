"""Predictions and scores of images: compared with the evaluators, and kept in a file."""

import json

import numpy as np
import pytest
import torch

from eseg_d2.apps.report.predictions import (
    ARCHITECTURES,
    PanopticTruth,
    Predictions,
    SemanticTruth,
    class_map,
    find_weights,
)
from eseg_d2.data.images import read_image
from eseg_d2.engine import load_config, load_trained
from eseg_d2.evaluation import PanopticQualityEvaluator, SemanticEvaluator

VAL = "scenes_cityscapes_panoptic_val"


def config_of(folder):
    weights = ["MODEL.WEIGHTS", str(folder / "model_final.pth")]
    return load_config(str(folder / "config.yaml"), weights)


def test_predictions_equal_the_models(make_run, tmp_path):
    folder = make_run(tmp_path / "run", "eseg_lite_s")
    cfg = config_of(folder)
    first = Predictions(folder, cfg)
    names = [*first.truth.records]
    first.complete(names[:2])
    assert [*first.scores] == names[:2]

    model = load_trained(cfg, architectures=("SemanticSegmentor",))
    pixels = read_image(names[0], cfg.INPUT.FORMAT).transpose(2, 0, 1).astype("float32")
    image = torch.from_numpy(np.ascontiguousarray(pixels))
    with torch.no_grad():
        labels = model([{"image": image, "height": 64, "width": 128}])[0]["sem_seg"].argmax(0)
    assert (class_map(*first[names[0]], names[0]) == labels.numpy()).all()


def test_predictions_of_other_weights_or_in_a_broken_file_are_ignored(make_run, tmp_path):
    folder = make_run(tmp_path / "run", "eseg_lite_s")
    cfg = config_of(folder)
    first = Predictions(folder, cfg)
    names = [*first.truth.records][:1]
    first.complete(names)
    scores = folder / "report_images" / "scores.json"
    content = scores.read_text()

    scores.write_text(content[:-30])
    assert Predictions(folder, cfg).scores == {}
    odd = json.loads(content)
    odd["images"] = {"../../elsewhere.png": {"score": 1, "segments": []}, names[0]: {"score": 2}}
    scores.write_text(json.dumps(odd))
    assert Predictions(folder, cfg).scores == {}

    scores.write_text(content)
    assert len(Predictions(folder, cfg).scores) == 1
    with open(folder / "model_final.pth", "ab") as weights:
        weights.write(b"more")
    assert Predictions(folder, cfg).scores == {}


def test_model_without_a_label_for_each_pixel_is_refused(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    cfg = config_of(folder)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    with pytest.raises(ValueError, match="META_ARCHITECTURE is GeneralizedRCNN"):
        Predictions(folder, cfg)


def test_final_weights_are_preferred_to_the_last_checkpoint(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        find_weights(run)
    (tmp_path / "outside.pth").touch()
    (run / "last_checkpoint").write_text("../outside.pth")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        find_weights(run)
    (run / "model_0000004.pth").touch()
    (run / "last_checkpoint").write_text("model_0000004.pth\n")
    assert find_weights(run).name == "model_0000004.pth"
    (run / "model_final.pth").touch()
    assert find_weights(run).name == "model_final.pth"


def imperfect_prediction(truth, name):
    """Return the truth as a prediction, with a void first row and one segment of a wrong class."""
    segment_map = truth.segment_map(name).copy()
    segment_map[0] = 0
    keys = ("id", "category_id", "isthing")
    segments = [{k: s[k] for k in keys} for s in truth.records[name]["segments_info"]]
    segments = [s for s in segments if s["id"] in segment_map]
    largest = max(segments, key=lambda s: (segment_map == s["id"]).sum())
    largest["category_id"] = (largest["category_id"] + 1) % truth.label_space.num_classes
    return segment_map, segments


def test_panoptic_score_of_an_image_equals_the_evaluators(scenes):
    truth = PanopticTruth(VAL)
    for name in truth.records:
        prediction = imperfect_prediction(truth, name)
        evaluator = PanopticQualityEvaluator(VAL, distributed=False)
        evaluator.process([{"file_name": name}], [{"panoptic_seg": prediction}])
        expected = evaluator.evaluate()["panoptic_seg"]["PQ"]
        assert 0 < expected < 100
        assert truth.score(name, *prediction) == pytest.approx(expected)


def test_semantic_score_of_an_image_equals_the_evaluators(scenes):
    truth = SemanticTruth(VAL)
    name = next(iter(truth.records))
    labels = truth.classes(name)
    predicted = np.roll(np.where(labels < 0, 0, labels), 5, axis=1)
    ids = np.unique(predicted).tolist()
    segments = [{"id": c + 1, "category_id": c} for c in ids]
    logits = torch.nn.functional.one_hot(torch.from_numpy(predicted), 19).permute(2, 0, 1)
    evaluator = SemanticEvaluator(VAL, distributed=False)
    evaluator.process([{"file_name": name}], [{"sem_seg": logits}])
    expected = evaluator.evaluate()["sem_seg"]["mIoU"]
    assert truth.score(name, predicted + 1, segments) == pytest.approx(expected)
    assert set(ARCHITECTURES.values()) == {PanopticTruth, SemanticTruth}


def test_void_has_no_class(scenes):
    truth = PanopticTruth(VAL)
    name = next(iter(truth.records))
    segments = truth.records[name]["segments_info"]
    classes = truth.classes(name)
    assert ((classes == -1) == (truth.segment_map(name) == 0)).all() and (classes == -1).any()
    for segment in segments:
        assert (classes[truth.segment_map(name) == segment["id"]] == segment["category_id"]).all()
