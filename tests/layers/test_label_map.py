"""Label maps computed in strips equal those of all logits at full size."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from eseg_d2.apps.benchmarks.measure import peak_memory
from eseg_d2.layers.label_map import label_map


def plain(logits, stride, image_size, output_size):
    """Compute the labels as Detectron2 does, from all logits at full size."""
    x = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
    x = x[:, :, : image_size[0], : image_size[1]]
    if output_size != image_size:
        x = F.interpolate(x, size=output_size, mode="bilinear", align_corners=False)
    return x.argmax(1)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    stride=st.sampled_from([1, 2, 4, 8]),
    crop=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    strip=st.sampled_from([1, 200, 2**17]),
)
def test_same_labels_without_resizing(size, stride, crop, strip):
    torch.manual_seed(size[0] * 41 + size[1])
    logits = torch.randn(2, 5, *size).double()
    image = tuple(max(s * stride - c, 1) for s, c in zip(size, crop, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eseg_d2.layers.label_map.STRIP_PIXELS", strip)
        labels = label_map(logits, stride=stride, image_size=image)
    assert torch.equal(labels, plain(logits, stride, image, image).to(torch.uint8))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    output=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    strip=st.sampled_from([1, 500, 2**17]),
)
def test_same_labels_with_resizing(size, output, strip):
    torch.manual_seed(size[0] * 41 + output[1])
    logits = torch.randn(1, 5, *size).double()
    image = (size[0] * 4 - 1, size[1] * 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eseg_d2.layers.label_map.STRIP_PIXELS", strip)
        labels = label_map(logits, stride=4, image_size=image, output_size=output)
    assert torch.equal(labels, plain(logits, 4, image, output).to(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("output", [(2500, 12), (4400, 12)])
def test_half_precision_gives_the_labels_of_the_same_logits_in_float32(dtype, output):
    """The maps have more rows than half precision can count."""
    torch.manual_seed(0)
    logits = torch.randn(1, 5, 550, 3).to(dtype)
    labels = label_map(logits, stride=8, image_size=(4400, 24), output_size=output)
    expected = plain(logits.float(), 8, (4400, 24), output)
    assert (labels == expected).float().mean() > 0.9999


def test_ties_nans_and_many_classes_are_handled():
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 1:, :2] = 1
    labels = label_map(logits, stride=1, image_size=(4, 4))
    assert labels.dtype == torch.uint8
    assert labels[0].tolist() == 2 * [[1] * 4] + 2 * [[0] * 4]
    logits[0, :, 0, 0] = torch.nan
    assert label_map(logits, stride=1, image_size=(4, 4)).max() < 3
    many = torch.randn(1, 300, 4, 4)
    labels = label_map(many, stride=1, image_size=(4, 4))
    assert torch.equal(labels, many.argmax(1)) and labels.dtype == torch.int64


@pytest.mark.parametrize("output", [(1024, 2048), (900, 1800)])
def test_labels_take_at_most_a_quarter_of_the_memory(output):
    logits = torch.randn(1, 19, 128, 256)

    def ours():
        return label_map(logits, stride=8, image_size=(1024, 2048), output_size=output)

    def theirs():
        return plain(logits, 8, (1024, 2048), output)

    assert (ours() == theirs()).float().mean() > 0.99999
    assert peak_memory(ours, "cpu") <= 0.25 * peak_memory(theirs, "cpu")
