"""Properties of every semantic head of ours, and their loss. Add new heads to HEADS."""

import functools

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.projects.deeplab.loss import DeepLabCE
from torch import nn

from eseg_d2.modeling.sem_seg.eseg_head import ESegHead
from eseg_d2.modeling.sem_seg.head import LOSS_TYPES, pixel_cross_entropy
from eseg_d2.modeling.sem_seg.rsp_head import RSPHead

WIDTH = 16
NARROW_RSP = functools.partial(RSPHead, channels=WIDTH, num_heads=4)
# name -> (the head, the width of the pyramid below it)
HEADS = {
    "rsp": (NARROW_RSP, WIDTH),
    "rsp_wider_pyramid": (NARROW_RSP, 24),
    "eseg": (ESegHead, WIDTH),
}
heads = pytest.mark.parametrize("name", HEADS)


def make(name, levels, **options):
    head, channels = HEADS[name]
    shapes = {f"p{i}": ShapeSpec(channels=channels, stride=2**i) for i in reversed(levels)}
    return head(shapes, num_classes=5, **options)


def features(name, levels, size, batch=2):
    torch.manual_seed(0)
    sizes = {i: [-(-length // 2**i) for length in size] for i in levels}
    return {f"p{i}": torch.randn(batch, HEADS[name][1], *sizes[i]) for i in levels}


def assert_gradients_everywhere(model):
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@heads
@pytest.mark.parametrize("levels", [(2, 3), (5, 6), (2, 3, 4, 5, 6, 7), (3, 4, 5, 6, 7, 8, 9)])
@pytest.mark.parametrize("size", [(96, 160), (33, 65)])
def test_trains_and_predicts_on_any_levels(name, levels, size):
    model = make(name, levels)
    x = features(name, levels, size)
    nothing, losses = model(x, torch.randint(0, 5, (2, *size)))
    assert nothing is None and set(losses) == {"loss_sem_seg"}
    losses["loss_sem_seg"].backward()
    assert_gradients_everywhere(model)
    logits, losses = model.eval()(x)
    stride = 2 ** levels[0]
    assert logits.shape == (2, 5, *(-(-length // stride) * stride for length in size))
    assert losses == {}


@heads
@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
@pytest.mark.parametrize(
    "levels, size", [((5, 6), (32, 32)), ((3, 4, 5, 6, 7, 8, 9), (64, 128))], ids=str
)
def test_one_image_trains_on_maps_of_one_pixel(name, norm, levels, size):
    """PyTorch's batch norm refuses a single value per channel."""
    model = make(name, levels, norm=norm)
    x = features(name, levels, size, batch=1)
    _, losses = model(x, torch.zeros(1, *size, dtype=torch.int64))
    losses["loss_sem_seg"].backward()
    assert_gradients_everywhere(model)


@heads
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_without_valid_pixels_is_zero_with_gradients(name, loss_type):
    model = make(name, (2, 3, 4), loss_type=loss_type)
    _, losses = model(features(name, (2, 3, 4), (32, 32)), torch.full((2, 32, 32), 255))
    assert losses["loss_sem_seg"] == 0
    losses["loss_sem_seg"].backward()
    assert_gradients_everywhere(model)


@heads
def test_loss_weight_scales_the_loss(name):
    x, targets = features(name, (2, 3), (32, 32)), torch.randint(0, 5, (2, 32, 32))
    plain, weighted = (make(name, (2, 3), loss_weight=weight) for weight in (1.0, 0.25))
    weighted.load_state_dict(plain.state_dict())
    loss, quarter = (model(x, targets)[1]["loss_sem_seg"] for model in (plain, weighted))
    torch.testing.assert_close(quarter, loss / 4)


@heads
def test_levels_are_ordered_by_stride(name):
    assert make(name, (4, 2, 3)).in_features == ["p2", "p3", "p4"]


@heads
def test_invalid_options_are_named(name):
    with pytest.raises(ValueError, match="SEM_SEG_HEAD.LOSS_TYPE is 'x'"):
        make(name, (2, 3), loss_type="x")
    with pytest.raises(ValueError, match="IN_FEATURES is empty"):
        make(name, ())


@heads
def test_class_weights_scale_the_loss_and_are_checked(name):
    x, targets = features(name, (3, 4), (32, 64)), torch.zeros(2, 32, 64, dtype=torch.int64)
    torch.manual_seed(0)
    plain = make(name, (3, 4))
    torch.manual_seed(0)
    weighted = make(name, (3, 4), class_weights=(3.0, 1.0, 1.0, 1.0, 1.0))
    assert plain.state_dict().keys() == weighted.state_dict().keys()
    losses = [head(x, targets)[1]["loss_sem_seg"] for head in (plain, weighted)]
    torch.testing.assert_close(losses[1], 3 * losses[0])
    with pytest.raises(ValueError, match="CLASS_WEIGHTS is .*expected numbers of 0 or more"):
        make(name, (3, 4), class_weights=(1.0, -1.0, 1.0, 1.0, 1.0))


def test_one_level_is_enough_for_eseg():
    logits, _ = make("eseg", (3,)).eval()(features("eseg", (3,), (33, 65)))
    assert logits.shape == (2, 5, 40, 72)


def test_logits_of_eseg_equal_the_formula():
    """They are a weighted sum of resized levels, separable 3x3, norm, activation and 1x1."""
    model = make("eseg", (3, 4), activation="relu").double().eval()
    with torch.no_grad():
        model.fuse.weight.copy_(torch.tensor([3.0, 1.0]))
        x = {k: v.double() for k, v in features("eseg", (3, 4), (64, 64)).items()}
        fused = (3 * x["p3"] + upsample(x["p4"], (8, 8))) / (4 + 1e-4)
        conv = model.conv.conv
        y = F.conv2d(fused, conv.depthwise.weight, padding=1, groups=WIDTH)
        y = F.conv2d(y, conv.pointwise.weight, conv.pointwise.bias)
        norm = model.conv.norm
        y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        expected = F.conv2d(y.relu(), model.predictor.weight, model.predictor.bias)
        torch.testing.assert_close(model.layers(x), expected)


def test_invalid_options_of_eseg_are_refused():
    with pytest.raises(ValueError, match="activation is 'x'"):
        make("eseg", (3, 4), activation="x")
    shapes = {"a": ShapeSpec(channels=8, stride=8), "b": ShapeSpec(channels=16, stride=16)}
    with pytest.raises(ValueError, match="expected one width"):
        ESegHead(shapes, num_classes=2)
    assert isinstance(make("eseg", (3, 4)).activation, nn.SiLU)


def example(ignored_rows=3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 8, 10, generator=generator)
    targets = torch.randint(0, 5, (2, 32, 40), generator=generator)
    targets[:, :ignored_rows] = 255
    return logits, targets


def upsample(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def pixel_losses(logits, targets):
    """Return the losses of the pixels that are not ignored, in float64."""
    log_p = upsample(logits.double(), targets.shape[-2:]).log_softmax(1)
    log_p = log_p.permute(0, 2, 3, 1)[targets != 255]
    return -log_p[torch.arange(len(log_p)), targets[targets != 255]]


def loss(logits, targets, loss_type="cross_entropy", **options):
    return pixel_cross_entropy(logits, targets, ignore_value=255, loss_type=loss_type, **options)


def test_cross_entropy_is_the_mean_over_valid_pixels():
    logits, targets = example()
    expected = pixel_losses(logits, targets).mean().item()
    assert loss(logits, targets).item() == pytest.approx(expected, abs=1e-5)


def test_hard_pixel_mining_equals_that_of_detectron2():
    logits, targets = example()
    full = upsample(logits, targets.shape[-2:])
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
