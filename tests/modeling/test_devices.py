"""Forward passes on a simulated GPU: PyTorch's fake tensors have a device, but no data.

They raise an error where data is read, which would synchronise with a GPU, and where tensors on
different devices are combined.
"""

import pytest
import torch
from detectron2.modeling import build_model
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from eseg_d2.engine import load_config
from eseg_d2.layers.label_map import label_map

SIZE = (256, 512)
pytestmark = pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="it ends the process: it asks for a real GPU"
)


@pytest.fixture
def on_gpu():
    """Return a function that moves a model to a fake GPU until the test ends."""
    before = []

    def move(model):
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                before.append((tensors, dict(tensors)))
                for name, value in tensors.items():
                    if value is not None:
                        fake = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                        is_parameter = isinstance(value, torch.nn.Parameter)
                        tensors[name] = torch.nn.Parameter(fake) if is_parameter else fake
        return model

    with FakeTensorMode():
        yield move
    for tensors, real in before:
        tensors.update(real)


def images(model):
    x = torch.empty(2, 3, *SIZE, device="cuda")
    return (x - model.pixel_mean) / model.pixel_std


@pytest.fixture(
    scope="module",
    params=[
        *("cityscapes/eseg_lite_s", "cityscapes/eseg_s"),
        *("cityscapes/rsp_semantic_R50", "cityscapes/rsp_panoptic_R50"),
    ],
)
def model(root, request):
    """Build a model on the CPU; of a panoptic one, the tests run only the semantic part."""
    overrides = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RSP_HEAD.COMPILE", "False"]
    return build_model(load_config(str(root / "configs" / f"{request.param}.yaml"), overrides))


@pytest.mark.parametrize("loss_type", ["cross_entropy", "hard_pixel_mining"])
def test_training_reads_no_data_and_mixes_no_devices(model, on_gpu, loss_type):
    on_gpu(model.train())
    model.sem_seg_head.loss_type = loss_type
    targets = torch.zeros(2, *SIZE, dtype=torch.int64, device="cuda")
    features = model.backbone(images(model))
    _, losses = model.sem_seg_head(features, targets)
    assert {loss.device.type for loss in [*losses.values(), *features.values()]} == {"cuda"}


def test_inference_reads_no_data_and_mixes_no_devices(model, on_gpu):
    on_gpu(model.eval())
    with torch.no_grad():
        logits, _ = model.sem_seg_head(model.backbone(images(model)), None)
        labels = label_map(logits, stride=1, image_size=SIZE)
        resized = label_map(logits, stride=1, image_size=SIZE, output_size=(300, 700))
    assert logits.shape == (2, 19, *SIZE) and logits.device.type == "cuda"
    assert labels.shape == (2, *SIZE) and labels.device.type == "cuda"
    assert resized.shape == (2, 300, 700) and resized.device.type == "cuda"


def test_fake_gpu_detects_both(on_gpu):
    x = torch.empty(3, device="cuda")
    with pytest.raises(DataDependentOutputException):
        int(x[0])
    with pytest.raises(RuntimeError, match="device"):
        x + torch.empty(3)
