"""The predictor: its results are those of the models, its options, and errors."""

import json
from dataclasses import replace

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from commands import python
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from pycocotools import mask as coco_mask

from eseg_d2 import Prediction, Predictor
from eseg_d2.apps.benchmarks.measure import peak_memory
from eseg_d2.data.images import read_image
from eseg_d2.engine import load_config
from eseg_d2.inference.prediction import VOID_CLASS, ClassTable


def make(model, **options) -> Predictor:
    path, overrides, weights = model
    return Predictor(path, weights, overrides=overrides, **options)


def detectron2_output(model, image):
    path, overrides, weights = model
    cfg = load_config(path, [*overrides, "MODEL.WEIGHTS", weights])
    return DefaultPredictor(cfg)(image)


def test_panoptic_results_are_those_of_the_model(panoptic_model, scene):
    image = read_image(scene)
    predictor = make(panoptic_model, fuse=False, channels_last=False)
    prediction = predictor(scene)
    assert isinstance(prediction, Prediction) and prediction.kind == "panoptic"
    expected, info = detectron2_output(panoptic_model, image)["panoptic_seg"]
    assert prediction.panoptic.dtype == np.int32
    assert (prediction.panoptic == expected.numpy()).all()
    assert [s["class_id"] for s in prediction.segments] == [s["category_id"] for s in info]
    for segment in prediction.segments:
        assert segment["area"] == prediction.mask(segment).sum() > 0
        assert segment["class_name"] == prediction.class_names[segment["class_id"]]
        x, y, w, h = segment["bbox"]
        assert prediction.mask(segment)[y : y + h, x : x + w].sum() == segment["area"]
        assert (prediction.label_map()[prediction.mask(segment)] == segment["class_id"]).all()
    assert sum(s["share"] for s in prediction.segments) == pytest.approx(
        (prediction.panoptic > 0).mean()
    )
    assert len(prediction.instances.scores) == len(prediction.instances.masks)
    assert (make(panoptic_model)(scene).panoptic == prediction.panoptic).mean() > 0.999


SEMANTIC = ("eseg_lite_s", "rsp_semantic_R50", "semantic_fpn_R50", "deeplab_v3_R50")
RGB = ("INPUT.FORMAT", "RGB")


@pytest.fixture(scope="module", params=SEMANTIC)
def semantic_cfg(request, root, tmp_path_factory):
    settings = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "96"]
    settings += RGB if request.param == "semantic_fpn_R50" else ()
    cfg = load_config(str(root / "configs" / "scenes" / f"{request.param}.yaml"), settings)
    torch.manual_seed(0)
    model = build_model(cfg)
    predictor = model.sem_seg_head.predictor
    torch.nn.init.normal_(predictor.weight, std=1.0)
    with torch.no_grad():  # so that no class wins everywhere
        image = torch.from_numpy(noise(96, 192)).permute(2, 0, 1)
        predictor.bias -= model.eval()([{"image": image}])[0]["sem_seg"].mean((1, 2))
    cfg.MODEL.WEIGHTS = str(tmp_path_factory.mktemp("semantic") / "weights.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    return cfg


def noise(*size):
    return np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("options", [{}, {"channels_last": False, "fuse": False}])
@pytest.mark.parametrize("size", [(96, 192), (75, 100)])
def test_semantic_results_are_those_of_the_model(semantic_cfg, options, size):
    image = noise(*size)
    prediction = Predictor.from_config(semantic_cfg, **options)(image)
    expected = DefaultPredictor(semantic_cfg)(image)["sem_seg"].argmax(0).numpy()
    assert prediction.semantic.dtype == np.uint8 and prediction.semantic.shape == size
    assert (prediction.semantic == expected).mean() > 0.999
    assert len(np.unique(expected)) > 1
    assert prediction.panoptic is None and prediction.instances is None
    ids, areas = np.unique(prediction.semantic, return_counts=True)
    assert [(s["class_id"], s["area"]) for s in prediction.segments] == list(
        zip(ids.tolist(), areas.tolist(), strict=True)
    )


def test_mixed_precision_is_close_to_float32(semantic_cfg):
    image = noise(96, 192)
    plain, mixed = (
        Predictor.from_config(semantic_cfg, autocast=dtype) for dtype in (None, torch.bfloat16)
    )
    batch = plain.preprocess([image])
    logits, other = (predictor.network(batch)[0].float() for predictor in (plain, mixed))
    error = (other - logits).abs().max() / logits.abs().max()
    assert 0 < error < 0.1
    assert (mixed(image).semantic == plain(image).semantic).mean() > 0.8


def test_panoptic_models_run_in_mixed_precision(panoptic_model, scene):
    plain, mixed = (make(panoptic_model, autocast=dtype) for dtype in (None, torch.bfloat16))
    assert (mixed(scene).semantic == plain(scene).semantic).mean() > 0.8
    assert len(mixed(scene).instances.scores) > 0


def graphed(network, **options):
    """Imitate CUDA graphs on a CPU: each call overwrites the result of the first."""
    memory = []

    def run(x):
        features, logits = network(x)
        memory.append(memory[0].copy_(logits) if memory else logits)
        return features, memory[0]

    return run


def test_logits_survive_the_next_run_of_a_cuda_graph(semantic_model, monkeypatch):
    monkeypatch.setattr(torch, "compile", graphed)
    predictor = make(semantic_model, compile=True)
    first, second = (
        predictor.preprocess([image]) for image in (noise(64, 128), noise(64, 128) // 2)
    )
    logits, _ = predictor.network(first)
    before = logits.clone()
    assert not torch.equal(predictor.network(second)[0], before)
    assert torch.equal(logits, before)


def test_large_image_takes_little_memory(panoptic_model, scene):
    """At this size, logits would take 114 MB and the masks of 100 objects 150 MB."""
    image = cv2.resize(read_image(scene), (1500, 1000))
    predictor = make(panoptic_model)
    prediction = predictor(image)
    assert prediction.semantic.shape == (1000, 1500) and len(prediction.instances.scores) > 20
    assert peak_memory(lambda: predictor(image), "cpu") < 60e6


def test_instance_results_are_those_of_the_model(instance_model, scene):
    options = {"fuse": False, "channels_last": False}
    prediction = make(instance_model, confidence_threshold=0.02, **options)(scene)
    path, overrides, weights = instance_model
    overrides = [*overrides, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.02"]
    expected = detectron2_output((path, overrides, weights), read_image(scene))["instances"]
    assert 0 < len(expected) == len(prediction.segments)
    assert np.allclose(prediction.instances.boxes, expected.pred_boxes.tensor.numpy())
    assert (prediction.instances.masks == expected.pred_masks.numpy()).all()
    assert prediction.segments[0]["class_name"] in prediction.class_names
    assert len(prediction.class_names) == 80
    best = prediction.instances.masks[0]
    assert (prediction.label_map()[best] == prediction.instances.classes[0]).all()


def test_roi_classes_are_mapped_to_contiguous_ids(root, instance_model, scene):
    path, overrides, weights = instance_model
    data = ["DATASETS.TEST", "('scenes_cityscapes_panoptic_val',)"]
    index = overrides.index("MODEL.ROI_HEADS.NUM_CLASSES")
    cfg = load_config(path, [*overrides[:index], *overrides[index + 2 :], *data])
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 8
    classes = ClassTable.of_config(cfg)
    assert [classes.names[c] for c in classes.from_roi][:3] == ["person", "rider", "car"]
    assert classes.from_roi == tuple(range(11, 19))


def test_semantic_class_of_all_things_is_mapped_to_void(root):
    cfg = load_config(str(root / "configs/scenes/rsp_panoptic_R18_coco.yaml"), [])
    classes = ClassTable.of_config(cfg)
    assert classes.from_semantic[0] == VOID_CLASS
    assert [classes.names[c] for c in classes.from_semantic[1:3]] == ["road", "sidewalk"]


def test_boxes_without_masks_are_predicted(instance_model, scene):
    path, overrides, weights = instance_model
    without = (path, [*overrides, "MODEL.MASK_ON", "False"], weights)
    prediction = make(without, confidence_threshold=0.02)(scene)
    assert prediction.instances.masks is None and prediction.segments
    assert "segmentation" not in prediction.as_dict()["segments"][0]
    with pytest.raises(ValueError, match="boxes without masks"):
        prediction.label_map()


def test_masks_can_be_decoded_from_json(panoptic_model, scene):
    prediction = make(panoptic_model)(scene)
    content = json.loads(json.dumps(prediction.as_dict()))
    for segment in content["segments"]:
        mask = coco_mask.decode(segment["segmentation"]).astype(bool)
        assert (mask == prediction.mask(segment)).all()


def test_batch_gives_the_same_as_single_images(panoptic_model, scene):
    predictor = make(panoptic_model)
    image = read_image(scene)
    first, second = predictor.predict_batch([scene, image[:, ::-1]])
    assert (first.semantic == predictor(scene).semantic).mean() > 0.999
    assert (second.semantic == predictor(image[:, ::-1]).semantic).mean() > 0.999
    assert predictor.predict_batch([]) == []


def test_prediction_prints_in_one_line(panoptic_model, scene):
    prediction = make(panoptic_model)(scene)
    text = repr(prediction)
    assert str(prediction) == text and "\n" not in text and len(text) < 400
    assert f"panoptic, 128 x 64 pixels, {len(prediction.segments)} segments" in text
    assert all(segment["class_name"] in text for segment in prediction.segments)
    assert repr(replace(prediction, segments=[])).endswith("0 segments: ->")


@pytest.mark.parametrize("kind", ["panoptic", "semantic", "instance"])
def test_prediction_draws_and_saves_itself(kind, request, scene, tmp_path):
    model = request.getfixturevalue(f"{kind}_model")
    prediction = make(model)(scene)
    assert (prediction.image == read_image(scene)).all()
    drawn = prediction.draw()
    assert drawn.shape == (320, 640, 3) and drawn.dtype == np.uint8
    plain = np.asarray(PIL.Image.fromarray(prediction.image[:, :, ::-1]).resize((640, 320)))
    assert np.abs(drawn.astype(int) - plain).mean() > 5
    prediction.save(tmp_path / "a.png")
    assert (np.asarray(PIL.Image.open(tmp_path / "a.png")) == drawn).all()
    prediction.save(str(tmp_path / "b.JPG"))
    assert PIL.Image.open(tmp_path / "b.JPG").format == "JPEG"


def test_errors_in_drawing_and_saving_are_named(semantic_model, scene, tmp_path):
    prediction = make(semantic_model)(scene)
    with pytest.raises(ValueError, match=r"a\.txt: expected a name that ends in \.png or \.jpg"):
        prediction.save(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="no image to draw on"):
        replace(prediction, image=None).draw()


def test_images_are_not_resized_for_a_size_of_zero(semantic_model, scene):
    path, overrides, weights = semantic_model
    predictor = make((path, [*overrides, "INPUT.MIN_SIZE_TEST", "0"], weights))
    image = read_image(scene)[:50, :70]
    assert predictor.preprocess([image]).image_sizes == [(50, 70)]
    assert predictor(image).size == (50, 70)


def test_confidence_threshold_removes_instances(panoptic_model, scene):
    assert len(make(panoptic_model, confidence_threshold=1.0)(scene).instances.scores) == 0
    assert len(make(panoptic_model, confidence_threshold=0.0)(scene).instances.scores) > 0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"shape \(4, 5\)"),
        (np.zeros((4, 5, 3), np.float32), "float32"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (np.zeros((1, 5000, 3), np.uint8), "too long and thin"),
        (None, "NoneType"),
    ],
)
def test_invalid_images_are_named(semantic_model, image, message):
    with pytest.raises(ValueError, match=message):
        make(semantic_model)(image)


def test_invalid_settings_are_named(panoptic_model, semantic_model):
    for model, options, message in (
        (panoptic_model, {"confidence_threshold": 1.5}, r"threshold is 1\.5"),
        (semantic_model, {"confidence_threshold": 0.5}, "SemanticSegmentor: leave it out"),
        (semantic_model, {"device": "gpu"}, "'gpu': expected cpu, cuda"),
        (semantic_model, {"device": "cuda:99"}, "this machine has"),
    ):
        with pytest.raises(ValueError, match=message):
            make(model, **options)
    with pytest.raises(ValueError, match="no weights"):
        Predictor(semantic_model[0])
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        Predictor(semantic_model[0], "nowhere.pth")
    with pytest.raises(ValueError, match="PanopticFPN; expected PanopticRCNN"):
        path, overrides, weights = panoptic_model
        other = [*overrides, "MODEL.META_ARCHITECTURE", "PanopticFPN"]
        Predictor(path, weights, overrides=other)


def test_predictor_is_imported_only_when_used(root):
    code = (
        "import sys, eseg_d2; assert 'eseg_d2.inference' not in sys.modules; "
        "eseg_d2.Predictor; assert 'eseg_d2.inference' in sys.modules"
    )
    done = python("-c", code, cwd=root)
    assert done.returncode == 0, done.stderr
    import eseg_d2

    assert not hasattr(eseg_d2, "nothing_of_the_kind")


RETINANET = """
MODEL:
  META_ARCHITECTURE: "RetinaNet"
  BACKBONE: {NAME: "build_retinanet_resnet_fpn_backbone"}
  RESNETS: {OUT_FEATURES: ["res3", "res4", "res5"]}
  FPN: {IN_FEATURES: ["res3", "res4", "res5"]}
  ANCHOR_GENERATOR:
    SIZES: [[32, 40, 51], [64, 81, 102], [128, 161, 203], [256, 323, 406], [512, 645, 813]]
DATASETS: {TRAIN: ["coco_2017_train"], TEST: ["coco_2017_val"]}
VERSION: 2
"""


def test_retinanet_of_detectron2_predicts(scene, tmp_path):
    """The anchors are listed, as we refuse Detectron2's config that computes them in the YAML."""
    path = str(tmp_path / "retinanet.yaml")
    (tmp_path / "retinanet.yaml").write_text(RETINANET)
    overrides = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64"]
    weights = str(tmp_path / "model.pth")
    model = build_model(load_config(path, overrides))
    torch.save({"model": model.state_dict()}, weights)
    prediction = make((path, overrides, weights), confidence_threshold=0.0)(scene)
    assert prediction.kind == "instance" and prediction.instances.masks is None
    assert prediction.segments and prediction.segments[0]["class_name"] in prediction.class_names
    threshold = float(np.median(prediction.instances.scores))
    fewer = make((path, overrides, weights), confidence_threshold=threshold)(scene).instances
    assert (fewer.scores >= threshold).all()
