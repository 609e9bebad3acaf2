"""Reading of a user's PNGs, images and categories."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eseg_d2.apps.convert.categories import category_index, check_ignored, read_categories
from eseg_d2.apps.convert.input_files import find_files, image_size, read_label_png


def write_png(path, values, depth, color_type, palette=None):
    """Write a PNG file by the standard, with any bit depth."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = values.shape
    rows = b""
    for row in values:
        bits = "".join(f"{v:0{depth}b}" for v in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    if palette is not None:
        data += chunk(b"PLTE", palette)
    path.write_bytes(data + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("color_type", "depth"),
    [*((0, depth) for depth in (1, 2, 4, 8, 16)), *((3, depth) for depth in (1, 2, 4, 8))],
)
def test_pngs_of_every_bit_depth_give_the_stored_numbers(tmp_path, color_type, depth):
    values = np.random.default_rng(depth).integers(0, 2**depth, (5, 7))
    palette = bytes(range(255, -1, -1)) * 3 if color_type == 3 else None
    write_png(tmp_path / "a.png", values, depth, color_type, palette and palette[: 3 * 2**depth])
    read = read_label_png(tmp_path / "a.png")
    assert read.dtype == np.int64
    assert np.array_equal(read, values)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_png_is_refused(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.new(mode, (3, 2)).save(path)
    with pytest.raises(ValueError, match="a.png is a colour png(.|\n)*one channel"):
        read_label_png(path)


def test_broken_png_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (50, 50), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    Image.fromarray(noise).save(tmp_path / "b.jpg")
    for content, message in (
        (whole[:400], "a.png.*complete"),
        (whole[:10], "a.png is not a png"),
        (b"", "a.png is empty"),
        ((tmp_path / "b.jpg").read_bytes(), "a.png is not a png"),
    ):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_label_png(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        read_label_png(tmp_path / "nowhere.png")


def test_image_size_takes_the_exif_orientation_into_account(tmp_path):
    from detectron2.data.detection_utils import read_image

    image = Image.new("RGB", (6, 4))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / "a.jpg", exif=exif)
        assert image_size(tmp_path / "a.jpg") == read_image(str(tmp_path / "a.jpg")).shape[:2]
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="a.jpg"):
        image_size(tmp_path / "a.jpg")


def test_files_are_found_by_name(tmp_path):
    for name in "b.JPG", "a.x.png", "town/a.jpeg", "notes.txt", ".hidden.png", ".git/a.png":
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_files(tmp_path, (".jpg", ".jpeg", ".png"))
    assert list(found) == ["a.x", "b", "town/a"]
    assert found["town/a"] == tmp_path / "town" / "a.jpeg"
    (tmp_path / "b.png").touch()
    with pytest.raises(ValueError, match="b.JPG(.|\n)*suffix"):
        find_files(tmp_path, (".jpg", ".png"))
    with pytest.raises(FileNotFoundError, match=r"holds no files \*.tif"):
        find_files(tmp_path, (".tif",))
    with pytest.raises(FileNotFoundError, match="no folder"):
        find_files(tmp_path / "nowhere", (".png",))


CATEGORIES = """
- {id: 0, name: sky, isthing: false, color: [1, 2, 3], note: left out}
- {id: 7, name: car, isthing: 1, supercategory: vehicle}
"""
CHECKED = [
    {"id": 0, "name": "sky", "isthing": 0, "color": [1, 2, 3]},
    {"id": 7, "name": "car", "isthing": 1, "supercategory": "vehicle"},
]


def test_categories_are_read_from_yaml_and_json(tmp_path):
    (tmp_path / "c.yaml").write_text(CATEGORIES)
    (tmp_path / "c.json").write_text(json.dumps({"categories": CHECKED}, indent="\t"))
    assert read_categories(tmp_path / "c.yaml") == CHECKED
    assert read_categories(tmp_path / "c.json") == CHECKED
    (tmp_path / "s.yml").write_text("[{id: 3, name: sky}]")
    assert read_categories(tmp_path / "s.yml", default_isthing=0) == [
        {"id": 3, "name": "sky", "isthing": 0}
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected a list"),
        ("a: 1", "expected a list"),
        ("", "is empty"),
        ("[1]", "is of type int, expected an object"),
        ("[{id: 1, name: a}]", "lacks isthing"),
        ("[{id: -1, name: a, isthing: 0}]", "a negative id"),
        ("[{id: '1', name: a, isthing: 0}]", "has id '1', expected an integer"),
        ("[{id: true, name: a, isthing: 0}]", "has id True"),
        ("[{id: 3.5, name: a, isthing: 0}]", "has id 3.5, expected an integer"),
        ("[{id: 1, name: 2, isthing: 0}]", "name 2, expected a string"),
        ("[{id: 1, name: a, isthing: 2}]", "isthing 2, expected 0 or 1"),
        ("[{id: 1, name: a, isthing: 'yes'}]", "isthing 'yes'"),
        ("[{id: 1, name: a, isthing: 0, color: red}]", "expected three of 0 .. 255"),
        ("[{id: 1, name: a, isthing: 0, color: [0, 0, 256]}]", "expected three of 0 .. 255"),
        ("[{id: 1, name: a, isthing: 0}, {id: 1, name: b, isthing: 0}]", "the id 1"),
        ("[{id: 1, name: a, isthing: 0}, {id: 2, name: a, isthing: 0}]", "the name a"),
        ("[{", "not valid yaml"),
    ],
)
def test_invalid_categories_are_named(tmp_path, content, message):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ValueError, match=f"c.yaml(.|\n)*{message}"):
        read_categories(tmp_path / "c.yaml")


def test_whole_floats_of_a_yaml_are_read_as_integers(tmp_path):
    (tmp_path / "c.yaml").write_text("[{id: 3.0, name: sky, isthing: 0.0, color: [1.0, 2, 3]}]")
    (category,) = read_categories(tmp_path / "c.yaml")
    assert (category["id"], category["isthing"]) == (3, 0)
    assert type(category["id"]) is int


def test_other_and_missing_category_files_are_refused(tmp_path):
    (tmp_path / "c.txt").write_text(CATEGORIES)
    with pytest.raises(ValueError, match=".json, .yaml or .yml"):
        read_categories(tmp_path / "c.txt")
    for name in "no.json", "no.yaml":
        with pytest.raises(FileNotFoundError, match=name):
            read_categories(tmp_path / name)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 65535), min_size=1, max_size=30, unique=True), st.data())
def test_category_index_of_pixels(tmp_path_factory, ids, data):
    count = data.draw(st.integers(0, len(ids) - 1))
    ignore, ids = tuple(ids[:count]), ids[count:]
    labels = np.array(data.draw(st.lists(st.sampled_from([*ids, *ignore]), max_size=20)), int)
    index = category_index(labels.reshape(1, -1), [*ids, 70000], ignore, "a.png")
    expected = [ids.index(v) if v in ids else -1 for v in labels.tolist()]
    assert index.tolist() == [expected]


def test_ignored_values_must_fit_16_bits():
    check_ignored((0, 65535), [], "c.yaml")
    for value in -1, 65536:
        with pytest.raises(ValueError, match=f"cannot ignore {value}"):
            check_ignored((value,), [], "c.yaml")
