"""Images as the project reads them: as Detectron2 does, but never half of one, and 16 bits."""

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import detection_utils
from PIL import Image

from eseg_d2 import inference
from eseg_d2.data.images import read_image
from eseg_d2.data.mapper import EvaluationMapper
from eseg_d2.utils.errors import BadSampleError


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30)])
@pytest.mark.parametrize("turned", [1, 3, 6])
def test_it_reads_as_detectron2_does(tmp_path, image_format, name, shape, turned):
    path = str(tmp_path / name)
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(pixels(*shape)).save(path, exif=exif)
    expected = detection_utils.read_image(path, format=image_format)
    got = read_image(path, image_format)
    assert got.shape == ((30, 20, 3) if turned == 6 else (20, 30, 3))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("damage", ["zeros", "one byte", "cut"])
def test_damage_in_the_pixels_of_a_png(tmp_path, at, damage):
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
def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path, name):
    values = np.array([[0, 128, 129, 257, 1000, 32768, 65535]], np.uint16)
    path = str(tmp_path / name)
    Image.fromarray(values).save(path)
    expected = np.repeat(np.round(values / 257).astype(np.uint8)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_image(path, "RGB"), expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "I;16", "CMYK"])
@pytest.mark.parametrize("turned", [1, 6])
def test_training_evaluation_and_prediction_see_the_same_pixels(tmp_path, mode, turned):
    """Whatever the image is, a model is asked about what it was trained on."""
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


def test_floating_point_pixels_are_refused(tmp_path):
    path = str(tmp_path / "a.tif")
    Image.fromarray(np.full((3, 4), 0.5, np.float32)).save(path)
    with pytest.raises(BadSampleError, match="floating-point"):
        read_image(path, "RGB")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file: .*gone.png"):
        read_image(str(tmp_path / "gone.png"), "RGB")
