"""Loading weights into models, and the report on what was loaded."""

import logging
import pickle
import re

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_resnet_backbone
from torch import nn

from eseg_d2.engine.checkpoint import SafeCheckpointer, load_weights
from eseg_d2.utils.weights_file import UnreadableWeightsError


class Segmentor(nn.Module):
    """A ResNet under the name it has in the project's models, with a predictor."""

    def __init__(self, depth=50, num_classes=3, norm="BN", width=4):
        super().__init__()
        cfg = get_cfg()
        cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.NORM = depth, norm
        cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = width
        cfg.MODEL.RESNETS.WIDTH_PER_GROUP = width
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
        self.backbone = nn.Module()
        self.backbone.bottom_up = build_resnet_backbone(cfg, ShapeSpec(channels=3))
        self.sem_seg_head = nn.Module()
        self.sem_seg_head.predictor = nn.Conv2d(8, num_classes, 1)


def summary_of(model, path):
    return SafeCheckpointer(model).load_weights(str(path))


def save(path, model, **extra):
    torch.save({"model": model.state_dict(), **extra}, path)
    return path


def same(model, other, prefix=""):
    theirs = other.state_dict()
    return all(
        torch.equal(value, theirs[name])
        for name, value in model.state_dict().items()
        if name.startswith(prefix)
    )


@pytest.fixture
def trained():
    model = Segmentor()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def test_empty_path_loads_nothing():
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    assert SafeCheckpointer(model).load_weights("") is None
    load_weights(model, "")
    assert torch.equal(model.weight, before)


def test_weights_of_the_same_model_are_loaded_completely(tmp_path, trained, caplog):
    path = save(tmp_path / "model.pth", trained)
    model = Segmentor()
    total = len(model.state_dict())
    with caplog.at_level(logging.INFO):
        load_weights(model, str(path))
    assert same(model, trained)
    text = f"Weights of {path}: {total} of the model's {total} tensors loaded"
    assert text in [r.getMessage() for r in caplog.records]
    summary = summary_of(model, path)
    summary.require_same_model()
    summary.require_similar_model()


def test_bare_and_wrapped_state_dicts_are_loaded(tmp_path, trained):
    """A file may have no key "model", or the names of a DistributedDataParallel."""
    torch.save(trained.state_dict(), tmp_path / "bare.pth")
    wrapped = {f"module.{name}": value for name, value in trained.state_dict().items()}
    torch.save({"model": wrapped}, tmp_path / "wrapped.pth")
    for name in "bare.pth", "wrapped.pth":
        model = Segmentor()
        load_weights(model, str(tmp_path / name))
        assert same(model, trained)


def test_summary_counts_loaded_missing_reshaped_and_unused(tmp_path, trained):
    weights = trained.state_dict()
    del weights["sem_seg_head.predictor.bias"]
    weights["extra.layer.weight"] = weights["extra.layer.bias"] = torch.ones(2)
    weights["backbone.bottom_up.stem.conv1.weight"] = torch.ones(4, 3, 5, 5)
    torch.save({"model": weights}, tmp_path / "model.pth")
    summary = summary_of(Segmentor(), tmp_path / "model.pth")
    total = len(trained.state_dict())
    assert summary.loaded == total - 2
    assert summary.missing == ["sem_seg_head.predictor.bias"]
    assert sorted(summary.unexpected) == ["extra.layer.bias", "extra.layer.weight"]
    text = str(summary)
    assert f"{total - 2} of the model's {total} tensors loaded" in text
    assert "1 missing, left as they were (sem_seg_head.predictor.*: 1)" in text
    shapes = "backbone.bottom_up.stem.conv1.weight: (4, 3, 5, 5), model (4, 3, 7, 7)"
    assert f"1 of another shape, left out ({shapes})" in text
    assert "2 not used (extra.layer.*: 2)" in text


def test_other_class_count_is_refused_but_can_be_fine_tuned(tmp_path, trained, caplog):
    path = save(tmp_path / "model.pth", trained)
    model = Segmentor(num_classes=5)
    with pytest.raises(ValueError, match="do not belong to this model") as error:
        load_weights(model, str(path))
    assert "has 3 outputs in the file and 5 in the model" in str(error.value)
    assert str(path) in str(error.value)
    caplog.clear()
    summary_of(model, path).require_similar_model()  # fine-tuning
    assert same(model, trained, "backbone")
    (record,) = [r for r in caplog.records if "Weights of" in r.getMessage()]
    assert record.levelname == "WARNING"
    assert "2 of another shape, left out (sem_seg_head.predictor" in record.getMessage()


@pytest.mark.parametrize(
    "other", [{"depth": 101}, {"depth": 34, "width": 64}, {"width": 8}], ids=["101", "34", "width"]
)
def test_other_depths_and_widths_are_refused(tmp_path, trained, other):
    path = save(tmp_path / "model.pth", trained)
    with pytest.raises(ValueError, match="do not belong to this model"):
        load_weights(Segmentor(**other), str(path))
    with pytest.raises(ValueError, match="another network|depth or kind differs") as error:
        summary_of(Segmentor(**other), path).require_similar_model()
    assert str(path) in str(error.value)


def test_weights_of_an_unrelated_model_are_refused(tmp_path, trained):
    path = save(tmp_path / "model.pth", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    with pytest.raises(ValueError, match="another network.*0 of the model's"):
        summary_of(trained, path).require_similar_model()
    with pytest.raises(ValueError, match="do not belong to this model"):
        load_weights(trained, str(path))


# --- ImageNet weights of the model zoos


def zoo_weights(model):
    """Return a backbone's weights as in the zoo: NumPy arrays, no prefix, and a classifier."""
    prefix = "backbone.bottom_up."
    weights = {
        name.removeprefix(prefix): value.numpy()
        for name, value in model.state_dict().items()
        if name.startswith(prefix) and not name.endswith("num_batches_tracked")
    }
    return {**weights, "fc.weight": np.ones((10, 8), np.float32), "fc.bias": np.ones(10)}


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_imagenet_weights_of_detectron2_are_loaded(tmp_path, norm):
    trained = Segmentor(norm=norm)
    path = tmp_path / "R-50.pkl"
    content = {"model": zoo_weights(trained), "__author__": "torchvision"}
    path.write_bytes(pickle.dumps({**content, "matching_heuristics": True}, protocol=2))
    model = Segmentor(norm=norm)
    summary = summary_of(model, path)
    summary.require_similar_model()
    assert same(model, trained, "backbone")
    assert sorted(summary.unexpected) == ["fc.bias", "fc.weight"]
    assert summary.loaded == len(zoo_weights(trained)) - 2
    with pytest.raises(ValueError, match="do not belong to this model.*sem_seg_head"):
        load_weights(model, str(path))
    with pytest.raises(ValueError, match="another network|depth or kind differs"):
        summary_of(Segmentor(depth=101, norm=norm), path).require_similar_model()


CAFFE2 = {
    "shortcut": "branch1",
    ".norm.weight": "_bn_s",
    ".norm.bias": "_bn_b",
    ".weight": "_w",
    ".": "_",
}


def test_caffe2_weights_are_loaded(tmp_path):
    """The ImageNet models of Detectron 1 are bare arrays with Caffe2's names."""
    trained = Segmentor(norm="FrozenBN")
    caffe2 = {}
    for name, value in zoo_weights(trained).items():
        if not name.startswith("fc") and "running" not in name:
            name = name.replace("stem.conv1.norm", "res_conv1.norm").replace("stem.", "")
            name = re.sub(r"(?<=\d\.)conv(\d)", lambda m: "branch2" + "_abc"[int(m[1])], name)
            for ours, theirs in CAFFE2.items():
                name = name.replace(ours, theirs)
            caffe2[name] = value
    caffe2["conv1_w_momentum"] = np.zeros(3)
    for content in caffe2, {"blobs": caffe2}:
        path = tmp_path / "R-50.pkl"
        path.write_bytes(pickle.dumps(content, protocol=2))
        model = Segmentor(norm="FrozenBN")
        summary = summary_of(model, path)
        summary.require_similar_model()
        assert same(model, trained, "backbone.bottom_up.res3.0.conv2.weight")
        assert summary.loaded == len(caffe2) - 1 and not summary.unexpected


def test_pycls_weights_are_loaded(tmp_path):
    trained = Segmentor()
    path = tmp_path / "RegNet.pyth"
    weights = {name: torch.from_numpy(value) for name, value in zoo_weights(trained).items()}
    weights["stem.conv1.norm.num_batches_tracked"] = torch.tensor(3)
    torch.save({"model_state": weights, "epoch": 3}, path)
    model = Segmentor()
    summary_of(model, path).require_similar_model()
    assert same(model, trained, "backbone")


# --- Readable files that hold no model


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([torch.ones(2)], "holds a list; expected a dict"),
        (torch.ones(2), "holds a Tensor; expected a dict"),
        ({}, "holds no weights"),
        ({"weight": "text"}, "'weight' is of type str, not a tensor"),
        ({"model": {"weight": [1.0, 2.0]}}, "'weight' is of type list, not a tensor"),
        ({"model": 3}, "holds no weights: int"),
        ({"model": None}, "holds no weights"),
        ({"model": {3: torch.ones(2)}}, "3 is a Tensor|holds no weights"),
        ({"epoch": 3, "state_dict": {"weight": torch.ones(2)}}, "'epoch' is of type int"),
        ({"model": {"weight": np.float32(3)}}, "'weight' is of type float32"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pyth"])
def test_torch_files_without_weights_are_named(tmp_path, content, match, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save(content, path)
    match = match if suffix == ".pth" else "holds"
    with pytest.raises(UnreadableWeightsError, match=match) as error:
        SafeCheckpointer(nn.Linear(2, 2)).load_weights(str(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        {"blobs": 3},
        {"blobs": {"conv1_w": "text"}},
        {3: np.ones(2)},
        {"model": {"a": np.array(["x"])}, "__author__": "me"},
        {"model": {"a": np.array([{}])}, "__author__": "me"},
        {},
        [np.ones(2)],
    ],
    ids=str,
)
def test_pickles_without_weights_are_named(tmp_path, content):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UnreadableWeightsError, match="holds"):
        SafeCheckpointer(nn.Linear(2, 2)).load_weights(str(path))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="gone.pth cannot be read.*no such file"):
        load_weights(nn.Linear(2, 2), str(tmp_path / "gone.pth"))


def test_ambiguous_names_are_refused(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    path = tmp_path / "model.pkl"
    content = {"model": {"weight": np.ones((2, 2), np.float32)}, "__author__": "me"}
    path.write_bytes(pickle.dumps({**content, "matching_heuristics": True}))
    with pytest.raises(ValueError, match="model.pkl cannot be loaded.*one checkpoint key"):
        SafeCheckpointer(model).load_weights(str(path))


def test_resuming_with_another_model_is_refused(tmp_path):
    SafeCheckpointer(Segmentor(), str(tmp_path)).save("model_final")
    with pytest.raises(
        ValueError, match=r"do not belong to this model(.|\n)*3 outputs in the file and 5"
    ):
        SafeCheckpointer(Segmentor(num_classes=5), str(tmp_path)).resume()
