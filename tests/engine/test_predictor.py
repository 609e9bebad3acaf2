import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from eseg_d2.engine import load_config
from eseg_d2.engine.predictor import SemanticPredictor

NAMES = ("eseg_lite_s", "rsp_semantic_R50", "semantic_fpn_R50", "deeplab_v3_R50")


@pytest.fixture(params=NAMES)
def cfg(request, root, tmp_path):
    settings = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "96"]
    path = root / "configs" / "scenes" / f"{request.param}.yaml"
    cfg = load_config(str(path), settings)
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.normal_(model.sem_seg_head.predictor.weight, std=1.0)
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    return cfg


@pytest.mark.parametrize("options", [{}, {"channels_last": True, "fuse": False}])
@pytest.mark.parametrize("size", [(96, 192), (75, 100)])
def test_labels_are_those_of_detectron2(cfg, options, size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    labels = SemanticPredictor(cfg, **options)(image)
    expected = DefaultPredictor(cfg)(image)["sem_seg"].argmax(0).numpy()
    assert labels.dtype == np.uint8 and labels.shape == size
    assert (labels == expected).mean() > 0.999
    assert len(np.unique(expected)) > 1


def test_mixed_precision_is_close(cfg):
    image = np.random.default_rng(0).integers(0, 255, (96, 192, 3), dtype=np.uint8)
    plain, mixed = (SemanticPredictor(cfg, autocast=a) for a in (None, torch.bfloat16))
    x, _ = plain.preprocess(image)
    logits = plain.network(x)
    assert mixed.network(x).dtype == torch.float32
    error = (mixed.network(x) - logits).abs().max() / logits.abs().max()
    assert 0 < error < 0.1


def graphed(network, **options):
    """What CUDA graphs do, on a CPU: each call writes its result into the memory of the first."""
    memory = []

    def run(x):
        result = network(x)
        memory.append(memory[0].copy_(result) if memory else result)
        return memory[0]

    return run


def test_logits_stay_what_they_are_when_cuda_graphs_run_again(cfg, monkeypatch):
    monkeypatch.setattr(torch, "compile", graphed)
    predictor = SemanticPredictor(cfg, compile=True)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (96, 192, 3), dtype=np.uint8) for _ in range(2)]
    first, second = (predictor.preprocess(image)[0] for image in images)
    logits = predictor.network(first)
    before = logits.clone()
    assert not torch.equal(predictor.network(second), before)
    assert torch.equal(logits, before)


def test_panoptic_models_are_refused(root):
    cfg = load_config(str(root / "configs/scenes/rsp_panoptic_R18_coco.yaml"), [])
    with pytest.raises(ValueError, match="is PanopticRCNN"):
        SemanticPredictor(cfg)
