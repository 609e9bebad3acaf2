"""The loss per pixel: ignored and hard pixels, class weights, precision."""

import pytest
import torch
from detectron2.projects.deeplab.loss import DeepLabCE

from eseg_d2.modeling.sem_seg.loss import LOSS_TYPES, pixel_cross_entropy


def example(ignored_rows=3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 8, 10, generator=generator)
    targets = torch.randint(0, 5, (2, 32, 40), generator=generator)
    targets[:, :ignored_rows] = 255
    return logits, targets


def pixel_losses(logits, targets):
    """Return the losses of the pixels that are not ignored, in float64."""
    full = torch.nn.functional.interpolate(
        logits.double(), size=targets.shape[-2:], mode="bilinear", align_corners=False
    )
    log_p = full.log_softmax(1).permute(0, 2, 3, 1)[targets != 255]
    return -log_p[torch.arange(len(log_p)), targets[targets != 255]]


def loss(logits, targets, loss_type="cross_entropy", **options):
    return pixel_cross_entropy(logits, targets, ignore_value=255, loss_type=loss_type, **options)


def test_cross_entropy_is_the_mean_over_valid_pixels():
    logits, targets = example()
    expected = pixel_losses(logits, targets).mean().item()
    assert loss(logits, targets).item() == pytest.approx(expected, abs=1e-5)


def test_hard_pixel_mining_equals_that_of_detectron2():
    logits, targets = example()
    full = torch.nn.functional.interpolate(
        logits, size=targets.shape[-2:], mode="bilinear", align_corners=False
    )
    theirs = DeepLabCE(ignore_label=255, top_k_percent_pixels=0.2)(full, targets)
    torch.testing.assert_close(loss(logits, targets, "hard_pixel_mining"), theirs)
    assert theirs > loss(logits, targets)


def test_ignored_pixels_are_not_mined():
    """If fewer than a fifth of the pixels are valid, all of these are mined."""
    logits, targets = example(ignored_rows=30)
    expected = pixel_losses(logits, targets).mean().item()
    assert loss(logits, targets, "hard_pixel_mining").item() == pytest.approx(expected, abs=1e-5)


def test_class_weights_scale_the_losses_of_pixels():
    logits, targets = example()
    weights = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0])
    scaled = pixel_losses(logits, targets) * weights.double()[targets[targets != 255]]
    result = loss(logits, targets, class_weights=weights)
    assert result.item() == pytest.approx(scaled.mean().item(), abs=1e-5)
    hardest = scaled.topk(targets.numel() // 5).values.mean().item()
    mined = loss(logits, targets, "hard_pixel_mining", class_weights=weights)
    assert mined.item() == pytest.approx(hardest, abs=1e-5)
    same = loss(logits, targets, class_weights=torch.ones(5))
    torch.testing.assert_close(same, loss(logits, targets))


@pytest.mark.parametrize("loss_type", ["cross_entropy", "hard_pixel_mining"])
def test_half_precision_is_computed_in_float32(loss_type):
    logits, targets = example()
    logits = logits.bfloat16()
    result = loss(logits, targets, loss_type)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss(logits.float(), targets, loss_type))


def test_pixel_count_normalises_cross_entropy_but_not_mining():
    logits, targets = example()
    alone = {kind: loss(logits, targets, kind) for kind in LOSS_TYPES}
    count = 2.0 * float((targets != 255).sum())
    whole = loss(logits, targets, "cross_entropy", pixel_count=count)
    torch.testing.assert_close(whole, alone["cross_entropy"] / 2)
    mined = loss(logits, targets, "hard_pixel_mining", pixel_count=count)
    assert torch.equal(mined, alone["hard_pixel_mining"])
