"""Images: formats, orientation, 16 bits, damaged files, and resizing as PIL does it."""

import os

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eseg_d2 import inference
from eseg_d2.data.images import FastResize, build_augmentation, read_image, resize_image
from eseg_d2.data.mapper import EvaluationMapper
from eseg_d2.utils.errors import BadSampleError


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30)])
@pytest.mark.parametrize("turned", range(1, 9))
def test_images_are_read_as_by_detectron2(tmp_path, image_format, name, shape, turned):
    path = str(tmp_path / name)
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(pixels(*shape)).save(path, exif=exif)
    expected = detection_utils.read_image(path, format=image_format)
    got = read_image(path, image_format)
    assert got.shape == ((20, 30, 3) if turned < 5 else (30, 20, 3))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("damage", ["zeros", "one byte", "cut"])
def test_damaged_pngs_are_refused(tmp_path, at, damage):
    path = tmp_path / "a.png"
    Image.fromarray(pixels(90, 120, 3) // 64).save(path)
    data = bytearray(path.read_bytes())
    begin = int(at * len(data))
    if damage == "zeros":
        data[begin:] = bytes(len(data) - begin)
    elif damage == "cut":
        del data[begin:]
    else:
        data[begin] ^= 255
    path.write_bytes(data)
    with pytest.raises(BadSampleError, match=f"cannot read the image {path}"):
        read_image(str(path), "RGB")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_greyscale_is_scaled_from_the_full_range(tmp_path, name):
    values = np.array([[0, 128, 129, 257, 1000, 32768, 65535]], np.uint16)
    path = str(tmp_path / name)
    Image.fromarray(values).save(path)
    expected = np.repeat(np.round(values / 257).astype(np.uint8)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_image(path, "RGB"), expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "I;16", "CMYK"])
@pytest.mark.parametrize("turned", [1, 6])
def test_training_evaluation_and_prediction_see_the_same_pixels(tmp_path, mode, turned):
    """A model must be asked about the pixels that it was trained on."""
    path = str(tmp_path / "a.tif")
    exif = Image.Exif()
    exif[0x0112] = turned
    image = Image.fromarray(pixels(20, 30, 4), "RGBA")
    if mode == "I;16":
        image = Image.fromarray(pixels(20, 30).astype(np.uint16) * 200)
    elif mode != "RGBA":
        image = image.convert("RGB").convert(mode)
    image.save(path, exif=exif)
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST = 0  # not resized
    mapped = EvaluationMapper(cfg)({"file_name": path})["image"].numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(mapped, read_image(path, "BGR"))
    np.testing.assert_array_equal(mapped, inference.read_image(path))


@pytest.fixture
def picture():
    """Return a picture of 20 x 30 pixels with four flat quarters, which JPEG hardly changes."""
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:10, :15], pixels[:10, 15:] = (200, 30, 30), (30, 200, 30)
    pixels[10:, :15], pixels[10:, 15:] = (30, 30, 200), (220, 220, 220)
    return Image.fromarray(pixels)


def bgr(image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))[:, :, ::-1]


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 12) -> bool:
    return a.shape == b.shape and np.abs(a.astype(int) - b).mean() < tolerance


NAMES = "L.png 1.png LA.png RGBA.png P.gif RGB.bmp RGB.ppm RGB.webp RGB.tiff CMYK.tiff CMYK.jpeg"


@pytest.mark.parametrize("name", [*NAMES.split(), "RGB.png.jpg"])  # the last is a png
def test_modes_and_formats_are_converted_to_bgr(tmp_path, picture, name):
    mode, kind, *_ = name.split(".")
    image = picture.convert(mode)
    image.save(tmp_path / name, format=kind)
    found = read_image(tmp_path / name)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    assert close(found, bgr(image))


def test_transparent_pixels_become_white(tmp_path, picture):
    picture.putalpha(0)
    picture.save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()
    Image.new("P", (4, 4)).save(tmp_path / "p.png", transparency=0)
    assert (read_image(tmp_path / "p.png") == 255).all()


def test_16_bit_colour_is_scaled(tmp_path, picture):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), bgr(picture).astype(np.uint16) * 257)
    assert close(read_image(tmp_path / "a.png"), bgr(picture), 1)


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    Image.new("1", (8200, 8200)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"large\.png has 8200 x 8200 pixels; the limit is 67"):
        read_image(tmp_path / "large.png")
    assert read_image(tmp_path / "large.png", max_pixels=8200**2).shape == (8200, 8200, 3)
    Image.new("1", (13400, 13400)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png: .*179560000 pixels"):
        read_image(tmp_path / "bomb.png", max_pixels=10**12)


def test_files_that_are_not_images_are_named(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").write_text("")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would block for ever
    (tmp_path / "eps.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    for name, message in {
        "text.jpg": "is not an image",
        "empty.jpg": "is empty",
        "folder.jpg": "is a folder",
        "link.jpg": "is a link to .*nowhere",
        "loop.jpg": "cannot open",
        "pipe.jpg": "device or pipe",
        "eps.jpg": "is not an image",
        "float.tif": "floating-point",
        "absent.jpg": "no such file",
        "zero\0.jpg": "cannot open",
    }.items():
        with pytest.raises((BadSampleError, FileNotFoundError), match=message) as caught:
            read_image(f"{tmp_path}/{name}")
        assert name in str(caught.value)
        assert isinstance(caught.value, FileNotFoundError) == (name in ("link.jpg", "absent.jpg"))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    image = Image.effect_noise((40, 30), 80).convert("RGB")
    folder = tmp_path_factory.mktemp("encoded")
    for suffix in "png", "jpg", "webp", "tif", "gif":
        image.save(folder / f"a.{suffix}")
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from([".png", ".jpg", ".webp", ".tif", ".gif"]))
def test_damaged_files_are_named_or_read(tmp_path, encoded, data, suffix):
    content = bytearray(encoded[suffix])
    content = content[: data.draw(st.integers(1, len(content)))]
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] ^= 0xA5
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    try:
        image = read_image(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


side = st.integers(1, 90)


def pil(image, size):
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


@given(st.tuples(side, side), st.tuples(side, side))
@settings(max_examples=200, deadline=None)
def test_colours_differ_from_pil_by_at_most_one(old, new):
    image = pixels(*old, 3)
    got = resize_image(image, new)
    assert got.dtype == np.uint8
    np.testing.assert_allclose(got.astype(int), pil(image, new).astype(int), atol=1)


def test_few_values_of_a_large_image_differ_from_pil():
    image = pixels(600, 800, 3)
    for size in [(800, 1067), (150, 200), (333, 444)]:
        assert (resize_image(image, size) != pil(image, size)).mean() < 0.01


@pytest.mark.parametrize(
    "image", [pixels(40, 60, 3)[:, :, ::-1], pixels(40, 60, 3)[::-2], pixels(3, 60, 40).T]
)
def test_strided_and_read_only_images_stay_as_they_were(image):
    image.flags.writeable = False
    before = image.copy()
    got = resize_image(image, (20, 30))
    assert np.abs(got.astype(int) - pil(before, (20, 30))).max() <= 1
    np.testing.assert_array_equal(image, before)


def test_labels_and_boxes_are_resized_by_detectron2():
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (37,)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"
    image, labels = pixels(50, 70, 3), pixels(50, 70)
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
