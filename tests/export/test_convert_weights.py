"""Weights as safetensors: converted by us, written by others, and damaged."""

import json
import pickle
import shutil
import struct

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from eseg_d2 import Predictor
from eseg_d2.engine.checkpoint import SafeCheckpointer, load_weights
from eseg_d2.export.convert_weights import convert_weights
from eseg_d2.utils.weights_file import UnreadableWeightsError, read_weights_file


def metadata_of(path):
    with safetensors.safe_open(path, framework="pt") as file:
        return file.metadata()


def test_converted_model_predicts_the_same_and_carries_metadata(panoptic_model, scene, tmp_path):
    config, overrides, weights = panoptic_model
    (tmp_path / "results.json").write_text('{"panoptic_seg": {"PQ": 45.0}}')
    source = tmp_path / "model_final.pth"
    shutil.copy(weights, source)
    path = convert_weights(str(source), config_file=config)
    assert path == str(tmp_path / "model_final.safetensors")
    first, second = (Predictor(config, file, overrides=overrides)(scene) for file in (source, path))
    np.testing.assert_array_equal(first.semantic, second.semantic)
    metadata = metadata_of(path)
    assert "META_ARCHITECTURE: PanopticRCNN" in metadata["config"]
    classes = json.loads(metadata["classes"])
    assert {"name": "road", "isthing": 0} in classes and {"name": "car", "isthing": 1} in classes
    assert json.loads(metadata["metrics"]) == {"panoptic_seg": {"PQ": 45.0}}


def test_names_of_zoo_weights_still_match_after_conversion(tmp_path):
    path = tmp_path / "model.pkl"
    values = np.arange(4, dtype=np.float32).reshape(2, 2)
    content = {"weight": values, "bias": values[0]}
    zoo = {"model": content, "__author__": "me", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(zoo, protocol=2))
    model = nn.ModuleDict({"layer": nn.Linear(2, 2)})
    load_weights(model, convert_weights(str(path)))
    np.testing.assert_array_equal(model["layer"].weight.detach(), values)


def test_shared_and_strided_tensors_are_converted(tmp_path):
    values = torch.arange(6.0).reshape(2, 3)
    weights = {"a": values, "b": values, "c": values.t(), "d": values[:, 1]}
    torch.save(weights, tmp_path / "model.pth")
    written = read_weights_file(convert_weights(str(tmp_path / "model.pth")))["model"]
    assert weights.keys() == written.keys()
    assert all(torch.equal(weights[name], written[name]) for name in weights)


def test_damaged_config_is_left_out_unless_asked_for(tmp_path, caplog):
    torch.save({"a": torch.ones(2)}, tmp_path / "model.pth")
    (tmp_path / "config.yaml").write_text("SOLVER: 3")
    path = convert_weights(str(tmp_path / "model.pth"))
    assert "config" not in metadata_of(path) and "left out" in caplog.text
    with pytest.raises(ValueError, match="config.yaml"):
        convert_weights(str(tmp_path / "model.pth"), config_file=str(tmp_path / "config.yaml"))
    with pytest.raises(ValueError, match=r"out.pth; its name must end with .safetensors"):
        convert_weights(str(tmp_path / "model.pth"), str(tmp_path / "out.pth"))


def test_safetensors_from_elsewhere_are_loaded(tmp_path):
    model = nn.Linear(2, 2)
    path = str(tmp_path / "model.safetensors")
    safetensors.torch.save_file({"weight": torch.ones(2, 2), "bias": torch.zeros(2)}, path)
    load_weights(model, path)
    assert model.weight.eq(1).all() and model.bias.eq(0).all()
    safetensors.torch.save_file({"weight": torch.ones(2, 2)}, path, {"model": "text"})
    summary = SafeCheckpointer(model).load_weights(path)
    assert summary.missing == ["bias"]


def _file(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


TENSOR = '{"a": {"dtype": "F32", "shape": [%s], "data_offsets": [%s]}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        struct.pack("<Q", 2**60) + b"{",
        _file(b"{"),
        _file((TENSOR % (3, "0, 8")).encode(), bytes(8)),
        _file((TENSOR % (2, "0, 8")).encode(), bytes(4)),
        _file((TENSOR % (2**62, f"0, {2**64 - 1}")).encode(), bytes(4)),
        _file(
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},'
            b'"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
            bytes(4),
        ),
        pickle.dumps({"model": {}}),
    ],
    ids=["empty", "text", "header", "json", "size", "cut", "overflow", "overlap", "pickle"],
)
def test_damaged_safetensors_are_named(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnreadableWeightsError, match=f"{path} cannot be read"):
        read_weights_file(str(path))
