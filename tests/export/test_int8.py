"""INT8 export: what is quantised, what is measured, and when no file is written."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from eseg_d2.engine import load_config
from eseg_d2.export import exporter
from eseg_d2.export.exporter import export_int8
from eseg_d2.export.formats import export_graph, load_exported, load_onnx
from eseg_d2.export.graphs import SemanticGraph
from eseg_d2.export.int8 import Quantizer
from eseg_d2.export.verify import label_agreement

pytestmark = pytest.mark.filterwarnings("ignore")


class Small(nn.Module):
    """Three convolutions to labels, of which the last has weights unfit for integers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 5, 1, bias=False)
        with torch.no_grad():
            nn.init.orthogonal_(self.third.weight)
            self.second.bias[0] = -100  # this channel is always zero, but its weights are large
            self.third.weight[:, 0] = 1e4

    def forward(self, image):
        return self.third(self.second(self.first(image / 64 - 2)).relu()).argmax(1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return (path of the fp32 file, images, Quantizer)."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 255, (3, 32, 48)).astype(np.float32) for _ in range(4)]
    example = (torch.from_numpy(images[0][None]),)
    names = {"input_names": ["image"], "output_names": ["labels"]}
    torch.onnx.export(Small(), example, str(path), opset_version=18, dynamo=False, **names)
    return path, images, Quantizer(path, images, len(images))


def quantised(content, names):
    """Return the names of the convolutions whose weights are integers."""
    nodes = onnx.load_from_string(content).graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    convs = [node for node in nodes if node.op_type == "Conv"]
    assert [node.name for node in convs] == list(names)
    return [node.name for node in convs if makers.get(node.input[1]) == "DequantizeLinear"]


def test_all_convolutions_but_the_kept_ones_are_quantised(small):
    _, _, quantizer = small
    first, second, third = quantizer.layers
    assert quantised(quantizer.quantize(), quantizer.layers) == [first, second, third]
    assert quantised(quantizer.quantize([second]), quantizer.layers) == [first, third]
    assert quantised(quantizer.quantize(["/s", "/third"]), quantizer.layers) == [first]
    with pytest.raises(ValueError, match="--keep fifth: no convolution .*/second/Conv"):
        quantizer.quantize([first, "fifth"])


def test_weights_have_a_scale_per_channel(small):
    _, _, quantizer = small
    graph = onnx.load_from_string(quantizer.quantize()).graph
    scales = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    weights = [x.input[1] for x in graph.node if x.op_type == "Conv"]
    of = {x.output[0]: scales[x.input[1]] for x in graph.node if x.op_type == "DequantizeLinear"}
    assert [of[name].shape for name in weights] == [(8,), (8,), (5,)]


def test_layers_are_ranked_by_their_cost(small):
    path, images, quantizer = small
    fp32 = load_exported(path)
    labels = [fp32(image[None])[0][0] for image in images]
    first, second, third = quantizer.layers
    assert exporter._costly_layers(quantizer, [], fp32, images)[0] == third
    assert sorted(exporter._costly_layers(quantizer, [third], fp32, images)) == sorted(
        [first, second]
    )
    assert label_agreement(load_onnx(quantizer.quantize()), images, labels) < 0.8
    assert label_agreement(load_onnx(quantizer.quantize([third])), images, labels) > 0.95


@pytest.fixture
def semantic(root, scenes, tmp_path):
    """Return (config, folder of images) of an ESeg model with random weights on street scenes."""
    path = str(root / "configs/scenes/eseg_lite_s.yaml")
    cfg = load_config(path, ["MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    model = build_model(cfg)
    nn.init.normal_(model.sem_seg_head.predictor.weight)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    return cfg, scenes / "street_scenes/cityscapes/leftImg8bit/train"


def test_int8_is_compared_with_fp32_on_the_validation_set(semantic, tmp_path, monkeypatch):
    cfg, images = semantic
    monkeypatch.setattr(exporter, "MAX_MIOU_LOSS", 100)
    path, info = export_int8(cfg, tmp_path / "out", images, size=(64, 128), keep=["/predictor"])
    assert json.loads((tmp_path / "out/model.json").read_text()) == info
    int8 = info["int8"]
    assert int8["calibration_images"] == 12 and int8["kept_in_fp32"] == ["/predictor"]
    assert 0.5 < int8["labels"] < 1
    assert 0 <= int8["mIoU"]["int8"] <= 100 and int8["mIoU"]["fp32"] != int8["mIoU"]["int8"]
    assert min(int8["milliseconds"].values()) > 0
    image = np.full((1, 3, 64, 128), 100, np.float32)
    (labels,) = load_exported(path)(image)
    assert labels.shape == (1, 64, 128) and labels.dtype == np.int64
    assert path.stat().st_size < 0.5 * (tmp_path / "out/model.onnx").stat().st_size


def test_model_that_loses_too_much_is_not_written(semantic, tmp_path, monkeypatch):
    cfg, images = semantic
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / exporter.INT8_FILE).write_text("from an earlier export")
    monkeypatch.setattr(exporter, "MAX_MIOU_LOSS", -100)
    monkeypatch.setattr(exporter, "_costly_layers", lambda quantizer, *_: quantizer.layers[:2])
    with pytest.raises(
        ValueError, match=r"(?s)mIoU on scenes_.* falls from .*--keep \S*conv_stem\S* "
    ) as e:
        export_int8(cfg, tmp_path / "out", images, size=(64, 128))
    assert "model_int8.onnx is not written" in str(e.value)
    assert not (tmp_path / "out" / exporter.INT8_FILE).exists()


def test_dynamic_sizes_are_exported_without_a_validation_set(semantic, tmp_path):
    cfg, images = semantic
    cfg.DATASETS.TEST = ()
    cfg.INPUT.MIN_SIZE_TEST = 64
    folder = tmp_path / "few" / "below"
    folder.mkdir(parents=True)
    for file in sorted(images.rglob("*.png"))[:2]:
        shutil.copy(file, folder)
    path, info = export_int8(cfg, tmp_path / "out", folder.parent, size=(64, 128), dynamic=True)
    assert info["int8"]["mIoU"] is None and info["int8"]["calibration_images"] == 2
    (labels,) = load_exported(path)(np.full((1, 3, 75, 131), 100, np.float32))
    assert labels.shape == (1, 75, 131)


def test_relation_stays_in_fp32(root, tmp_path):
    path = str(root / "configs/scenes/rsp_semantic_R50.yaml")
    model = build_model(load_config(path, ["MODEL.DEVICE", "cpu"])).eval()
    image = np.random.default_rng(0).uniform(0, 255, (3, 64, 96)).astype(np.float32)
    graph = SemanticGraph(model, with_logits=False).eval()
    file = export_graph(graph, tmp_path, "onnx", image[None], dynamic=False)
    quantizer = Quantizer(file, [image], 1)
    nodes = onnx.load_from_string(quantizer.quantize()).graph.node
    inside = [node for node in nodes if "/relation/" in node.name]
    assert inside and not any("QuantizeLinear" in name for x in inside for name in x.input[1:])
    labels = [load_exported(file)(image[None])[0][0]]
    assert label_agreement(load_onnx(quantizer.quantize()), [image], labels) > 0.5


def test_errors_before_quantisation_are_named(root, semantic, tmp_path):
    cfg, images = semantic
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no image in it"):
        export_int8(cfg, tmp_path / "out", tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        export_int8(cfg, tmp_path / "out", tmp_path / "none")
    (tmp_path / "empty" / "broken.png").write_bytes(b"no png")
    with pytest.raises(ValueError, match=r"broken\.png"):
        export_int8(cfg, tmp_path / "out", tmp_path / "empty", size=(64, 128))
    cfg.MODEL.META_ARCHITECTURE = "PanopticRCNN"
    with pytest.raises(ValueError, match="is for semantic models"):
        export_int8(cfg, tmp_path / "out", images)
