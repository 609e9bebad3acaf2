"""Resizing: equal to PIL's, by which Detectron2 resizes, to within 1 of 255."""

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eseg_d2.data.resize import FastResize, build_augmentation, resize_bilinear

side = st.integers(1, 90)


def noise(height, width, *channels):
    generator = np.random.default_rng(height * width)
    return generator.integers(0, 256, (height, width, *channels), dtype=np.uint8)


def pil(image, size):
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


@given(st.tuples(side, side), st.tuples(side, side))
@settings(max_examples=200, deadline=None)
def test_colours_differ_from_pil_by_at_most_one(old, new):
    image = noise(*old, 3)
    got = resize_bilinear(image, new)
    assert got.dtype == np.uint8
    np.testing.assert_allclose(got.astype(int), pil(image, new).astype(int), atol=1)


def test_few_values_of_a_large_image_differ_from_pil():
    image = noise(600, 800, 3)
    for size in [(800, 1067), (150, 200), (333, 444)]:
        assert (resize_bilinear(image, size) != pil(image, size)).mean() < 0.01


@pytest.mark.parametrize(
    "image", [noise(40, 60, 3)[:, :, ::-1], noise(40, 60, 3)[::-2], noise(3, 60, 40).T]
)
def test_strided_and_read_only_images_stay_as_they_were(image):
    image.flags.writeable = False
    before = image.copy()
    got = resize_bilinear(image, (20, 30))
    assert np.abs(got.astype(int) - pil(before, (20, 30))).max() <= 1
    np.testing.assert_array_equal(image, before)


def test_labels_and_boxes_are_resized_by_detectron2():
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (37,)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"
    image, labels = noise(50, 70, 3), noise(50, 70)
    ours = T.AugInput(image, sem_seg=labels)
    theirs = T.AugInput(image, sem_seg=labels)
    transforms = T.AugmentationList(build_augmentation(cfg, is_train=True))(ours)
    transforms.transforms[0] = T.ResizeTransform(50, 70, 37, 52)
    theirs.transform(transforms)
    np.testing.assert_array_equal(ours.sem_seg, theirs.sem_seg)
    assert np.abs(ours.image.astype(int) - theirs.image).max() <= 1
    boxes = np.array([[1.0, 2, 30, 40]])
    np.testing.assert_array_equal(
        FastResize(T.Resize((37, 52))).get_transform(image).apply_box(boxes),
        T.ResizeTransform(50, 70, 37, 52).apply_box(boxes),
    )
