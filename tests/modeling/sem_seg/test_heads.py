"""Properties of every semantic head of ours. Add new heads to HEADS."""

import functools

import pytest
import torch
from detectron2.layers import ShapeSpec

from eseg_d2.modeling.sem_seg.eseg_head import ESegHead
from eseg_d2.modeling.sem_seg.loss import LOSS_TYPES
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
