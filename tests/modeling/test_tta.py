"""Semantic test-time augmentation against a plain loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import DatasetMapperTTA
from torch import nn

from eseg_d2.modeling.test_time_augmentation import SemanticTTA


class Network(nn.Module):
    """A 3x3 convolution, which is not symmetric, followed by resizing to the output size."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, inputs):
        logits = [self.conv(x["image"][None].float() / 255) for x in inputs]
        sizes = [(x["height"], x["width"]) for x in inputs]
        return [
            {"sem_seg": F.interpolate(y, size, mode="bilinear", align_corners=False)[0]}
            for y, size in zip(logits, sizes, strict=True)
        ]


@pytest.mark.parametrize("output", [None, (30, 50)])
@pytest.mark.parametrize("flip", [True, False])
def test_result_is_the_mean_probability_of_all_versions(output, flip):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 24, 40), np.uint8))
    network = Network()
    tta = SemanticTTA(network, mapper=DatasetMapperTTA([16, 24, 37], 1000, flip))
    item = {"image": image}
    if output:
        item |= {"height": output[0], "width": output[1]}
    (got,) = tta([item])
    height, width = output or (24, 40)
    expected = []
    for size in (16, 24, 37):
        array = image.permute(1, 2, 0).numpy()
        resized = ResizeShortestEdge(size, 1000).get_transform(array).apply_image(array)
        for mirrored in (False, True)[: 1 + flip]:
            view = resized[:, ::-1] if mirrored else resized
            view = torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))
            (out,) = network([{"image": view, "height": height, "width": width}])
            probabilities = out["sem_seg"].softmax(0).detach().numpy()
            expected.append(probabilities[:, :, ::-1] if mirrored else probabilities)
    assert got["sem_seg"].shape == (5, height, width)
    np.testing.assert_allclose(got["sem_seg"].numpy(), np.mean(expected, 0), atol=1e-6)
    torch.testing.assert_close(got["sem_seg"].sum(0), torch.ones(height, width))
