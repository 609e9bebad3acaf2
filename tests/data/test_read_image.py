"""Images as the project reads them: as Detectron2 does, but never half of one."""

import numpy as np
import pytest
from detectron2.data import detection_utils
from PIL import Image

from eseg_d2.data.panoptic_png import read_image, require_whole_image
from eseg_d2.errors import BadSampleError


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
    require_whole_image(path)


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
    with pytest.raises(BadSampleError, match=f"cannot read the image {path}"):
        require_whole_image(str(path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such image: .*gone.png"):
        read_image(str(tmp_path / "gone.png"), "RGB")
