"""Panoptic export: the exported files, and the merge in NumPy against that of the model."""

import numpy as np
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from eseg_d2.engine import load_config, load_trained
from eseg_d2.export.formats import export_graph, load_exported
from eseg_d2.export.graphs import PanopticGraph, merge_settings
from eseg_d2.export.merge import merge_panoptic, paste_mask
from eseg_d2.export.verify import compare_panoptic
from eseg_d2.modeling.meta_arch.merge import merge_panoptic as merge_on_tensors
from eseg_d2.structures.label_space import LabelSpace

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model(root):
    """Return a model whose random predictors find many things of many classes."""
    path = str(root / "configs" / "scenes" / "rsp_panoptic_R18_coco.yaml")
    keys = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.02]
    keys += ["MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.05]
    keys += ["MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 10]
    torch.manual_seed(0)
    model = load_trained(load_config(path, keys), architectures=("PanopticRCNN",))
    for name, parameter in model.named_parameters():
        if "predictor" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def image(height, width):
    return np.random.default_rng(height).uniform(0, 255, (3, height, width)).astype(np.float32)


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_exported_file_equals_the_model_at_any_size(model, kind, tmp_path):
    graph = PanopticGraph(model).eval()
    path = export_graph(graph, tmp_path, kind, image(64, 96)[None], dynamic=True)
    images = [image(64, 96), image(96, 131), image(40, 64)]
    result = compare_panoptic(
        model, load_exported(path), graph.output_names, merge_settings(model), images
    )
    assert result["instances"] > 30 and result["labels"] >= 0.999


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_exported_file_handles_an_image_without_instances(model, kind, tmp_path):
    model.roi_heads.box_predictor.test_score_thresh = 0.9999
    graph = PanopticGraph(model).eval()
    model.roi_heads.box_predictor.test_score_thresh = 0.02
    path = export_graph(graph, tmp_path, kind, image(64, 96)[None], dynamic=False)
    raw = dict(zip(graph.output_names, load_exported(path)(image(64, 96)[None]), strict=True))
    assert len(raw["scores"]) == len(raw["masks"]) == 0
    panoptic, segments = merge_panoptic(raw, merge_settings(model))
    assert segments and not any(s["isthing"] for s in segments)
    assert {0, *(s["id"] for s in segments)} >= set(np.unique(panoptic).tolist())


boxes = st.tuples(
    st.floats(-8, 40), st.floats(-8, 40), st.floats(0.01, 50), st.floats(0.01, 50)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@settings(deadline=None, max_examples=60)
@given(box=boxes, seed=st.integers(0, 99), cells=st.sampled_from([1, 7, 28]))
def test_masks_are_pasted_as_by_detectron2(box, seed, cells):
    mask = np.random.default_rng(seed).random((cells, cells), np.float32)
    size, box = (31, 45), np.array(box, np.float32).clip(0, [45, 31, 45, 31])
    got = np.zeros(size, bool)
    rows, columns, part = paste_mask(mask, box, size)
    got[rows, columns] = part
    expected = np.zeros(size, bool)
    if (box[2:] > box[:2]).all():
        pasted = paste_masks_in_image(torch.tensor(mask)[None], torch.tensor(box)[None], size)
        expected = pasted[0].numpy()
    assert (got != expected).sum() <= 1  # a value of 0.5 may be rounded either way


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), things=st.integers(0, 8))
def test_merge_in_numpy_equals_that_of_the_model(seed, things):
    rng = np.random.default_rng(seed)
    space = LabelSpace(
        names=("road", "car", "sky", "bus"),
        dataset_ids=(7, 26, 23, 28),
        thing_ids=(1, 3),
    )
    corners = rng.integers(0, 30, (things, 2))
    raw = {
        "semantic": rng.integers(0, 4, (32, 40)),
        "boxes": np.hstack([corners, corners + rng.integers(1, 12, (things, 2))]).astype("f4"),
        "scores": rng.random(things).astype("f4"),
        "classes": rng.choice([1, 3], things),
        "masks": rng.random((things, 14, 14)).astype("f4") ** 0.5,
    }
    raw["boxes"] = raw["boxes"].clip(0, [40, 32, 40, 32])
    options = {"overlap_threshold": 0.5, "stuff_area_limit": 20, "score_threshold": 0.3}
    tables = {
        "is_thing": space.is_thing.tolist(),
        "semantic_to_contiguous": space.semantic_to_contiguous.tolist(),
    }
    panoptic, segments = merge_panoptic(raw, {**tables, **options})

    masks = np.zeros((things, 32, 40), bool)
    for i in range(things):
        rows, columns, mask = paste_mask(raw["masks"][i], raw["boxes"][i], (32, 40))
        masks[i, rows, columns] = mask
    found = Instances((32, 40), pred_masks=torch.from_numpy(masks))
    found.scores = torch.from_numpy(raw["scores"])
    found.pred_classes = torch.from_numpy(raw["classes"])
    expected, expected_segments = merge_on_tensors(
        found, torch.from_numpy(raw["semantic"]), space, **options
    )
    assert (panoptic == expected.numpy()).all()
    assert segments == expected_segments
