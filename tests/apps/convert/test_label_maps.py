"""Conversion of label PNGs and instance PNGs to a panoptic data set."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eseg_d2.apps.convert import convert_label_maps, dataset
from eseg_d2.data.panoptic_png import read_panoptic_png

CATEGORIES = [
    {"id": 40, "name": "car", "isthing": 1},
    {"id": 0, "name": "sky", "isthing": 0},
    {"id": 7, "name": "cat", "isthing": 1},
    {"id": 300, "name": "grass", "isthing": 0},
]
IGNORED = 255


class Inputs:
    """Builds folders of images, labels and instances, and converts them."""

    def __init__(self, root, categories=CATEGORIES):
        self.root = root
        self.arguments = {
            "images": root / "images",
            "labels": root / "labels",
            "instances": root / "instances",
            "categories": root / "categories.json",
            "output": root / "out",
            "workers": 1,
        }
        for key in "images", "labels", "instances":
            self.arguments[key].mkdir()
        (root / "categories.json").write_text(json.dumps(categories))

    def add(self, name, labels, instances=None, dtype=np.uint16, suffix=".jpg"):
        labels = np.asarray(labels)
        self.write("labels", name, labels, dtype)
        if instances is not None:
            self.write("instances", name, np.asarray(instances), dtype)
        image = self.root / "images" / f"{name}{suffix}"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*labels.shape, 3), np.uint8)).save(image)

    def write(self, folder, name, values, dtype=np.uint16):
        path = self.root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(dtype)).save(path)

    def convert(self, **changes):
        return convert_label_maps(**{**self.arguments, **changes})

    def result(self):
        content = json.loads((self.root / "out" / "panoptic.json").read_text())
        maps = [
            read_panoptic_png(str(self.root / "out" / "panoptic" / a["file_name"]))
            for a in content["annotations"]
        ]
        return content, maps


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path)


def check_segments(segment_map, segments_info):
    """Check that ids, areas and boxes agree with the PNG."""
    assert set(np.unique(segment_map).tolist()) - {0} == {s["id"] for s in segments_info}
    for segment in segments_info:
        rows, columns = np.nonzero(segment_map == segment["id"])
        assert segment["area"] == len(rows)
        x, y, width, height = segment["bbox"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())


def by_pixel(segment_map, segments_info):
    """Return (category_id, iscrowd, segment id) of each pixel, or None where it is void."""
    lookup = {s["id"]: (s["category_id"], s["iscrowd"]) for s in segments_info}
    return [[(*lookup[v], v) if v else None for v in row] for row in segment_map.tolist()]


def test_pixels_become_the_documented_segments(inputs):
    labels = [
        [0, 0, 300, 40, 40, 40],
        [40, 40, 40, 7, 7, IGNORED],
    ]
    instances = [
        [0, 5, 9, 1, 1, 0],
        [2, 2, 0, 1, 65535, 3],
    ]
    inputs.add("a", labels, instances)
    found = inputs.convert()
    assert (found.made, found.images, found.hidden) == (True, 1, 0)
    assert found.absent == found.crowd_only == ()
    content, (segment_map,) = inputs.result()
    info = content["annotations"][0]["segments_info"]
    check_segments(segment_map, info)
    segments_by_pixel = by_pixel(segment_map, info)
    kinds = [[pixel and pixel[:2] for pixel in row] for row in segments_by_pixel]
    car, cat, sky, grass, crowd = (40, 0), (7, 0), (0, 0), (300, 0), (40, 1)
    assert kinds == [[sky, sky, grass, car, car, crowd], [car, car, crowd, cat, cat, None]]
    top, bottom = segment_map.tolist()
    assert top[0] == top[1]  # instances of stuff are ignored
    assert top[3] == top[4] != bottom[0] == bottom[1]
    assert top[5] == bottom[2]  # one crowd
    assert len({top[3], bottom[3], bottom[4]}) == 3  # instance 1 of car is not instance 1 of cat
    assert found.segments == len(info) == 7
    assert content["categories"] == CATEGORIES
    assert content["images"] == [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 6}]
    assert content["annotations"][0]["image_id"] == 1
    assert content["annotations"][0]["file_name"] == "a.png"


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 33), st.integers(1, 33), st.integers(0, 10**6), st.sampled_from([1, 3, 60000])
)
def test_every_pixel_keeps_its_label_and_its_instance(tmp_path_factory, height, width, seed, most):
    inputs = Inputs(tmp_path_factory.mktemp("maps"))
    rng = np.random.default_rng(seed)
    labels = rng.choice([40, 0, 7, 300, IGNORED], (height, width))
    instances = rng.integers(0, most + 1, (height, width))
    inputs.add("a", labels, instances)
    inputs.convert()
    content, (segment_map,) = inputs.result()
    info = content["annotations"][0]["segments_info"]
    check_segments(segment_map, info)
    pairs = {}
    for row in range(height):
        for column in range(width):
            label, instance = int(labels[row, column]), int(instances[row, column])
            segment = int(segment_map[row, column])
            if label == IGNORED:
                assert segment == 0
                continue
            pair = (label, instance if label in (40, 7) else 0)
            assert pairs.setdefault(pair, segment) == segment
    assert len(set(pairs.values())) == len(pairs) == len(info)
    kinds = {s["id"]: (s["category_id"], s["iscrowd"]) for s in info}
    for (label, instance), segment in pairs.items():
        assert kinds[segment] == (label, int(label in (40, 7) and instance == 0))


def test_image_of_void_has_no_segments(inputs):
    inputs.add("a", np.full((3, 4), IGNORED), np.zeros((3, 4)))
    inputs.add("b", np.full((1, 1), 300), np.zeros((1, 1)))
    found = inputs.convert()
    content, maps = inputs.result()
    assert content["annotations"][0]["segments_info"] == []
    assert not maps[0].any()
    assert (found.images, found.segments) == (2, 1)
    assert found.absent == ("car", "sky", "cat")


def test_subfolders_suffixes_and_order_of_images(inputs):
    for name, suffix in (("town/b", ".png"), ("a.x", ".jpeg"), ("town/a", ".JPG")):
        inputs.add(name, np.full((2, 2), 300), np.zeros((2, 2)), suffix=suffix)
    inputs.convert(workers=2)
    content, _ = inputs.result()
    assert [i["file_name"] for i in content["images"]] == ["a.x.jpeg", "town/a.JPG", "town/b.png"]
    assert [a["file_name"] for a in content["annotations"]] == [
        "a.x.png",
        "town/a.png",
        "town/b.png",
    ]
    assert [i["id"] for i in content["images"]] == [1, 2, 3]


def test_data_set_of_stuff_needs_no_instances(tmp_path):
    inputs = Inputs(tmp_path, [{"id": 0, "name": "background", "isthing": False},
                               {"id": 255, "name": "wall", "isthing": False}])  # fmt: skip
    inputs.add("a", [[0, 255], [9, 0]], dtype=np.uint8)
    found = inputs.convert(instances=None, ignore=(9,))
    assert found.segments == 2
    _, (segment_map,) = inputs.result()
    assert (segment_map == [[1, 2], [0, 1]]).all()


def test_palette_pngs_are_read_as_indices(tmp_path):
    inputs = Inputs(tmp_path, [{"id": 1, "name": "wall", "isthing": 0},
                               {"id": 2, "name": "cat", "isthing": 1}])  # fmt: skip
    inputs.add("a", np.ones((2, 2)), np.ones((2, 2)))
    for folder in "labels", "instances":
        image = Image.fromarray(np.array([[1, 2], [2, 255]], np.uint8), mode="P")
        image.putpalette([200, 3, 90] * 256)
        image.save(tmp_path / folder / "a.png")
    inputs.convert()
    content, (segment_map,) = inputs.result()
    assert (segment_map == [[1, 2], [2, 0]]).all()
    assert [s["category_id"] for s in content["annotations"][0]["segments_info"]] == [1, 2]


def test_things_with_crowds_only_are_reported(inputs):
    inputs.add("a", [[40, 7, 7]], [[0, 0, 3]])
    found = inputs.convert()
    assert found.crowd_only == ("car",)
    assert found.absent == ("sky", "grass")


def test_faults_of_files_are_named(inputs):
    inputs.add("a", [[0, 40]], [[0, 1]])
    inputs.add("deep/b", [[0, 40]], [[0, 1]])
    assert not inputs.arguments["output"].exists()

    def fails(error, message, **changes):
        with pytest.raises(error, match=message):
            inputs.convert(**changes)
        assert not (inputs.root / "out" / "panoptic.json").exists()

    inputs.write("labels", "deep/b", np.array([[0, 41]]))
    fails(ValueError, r"deep.b.png has pixels with the value 41(.|\n)*--ignore")
    inputs.write("labels", "deep/b", np.array([[0, 40, 40]]))
    fails(ValueError, r"instances.deep.b.png is 1x2(.|\n)*labels.deep.b.png is 1x3")
    inputs.write("instances", "deep/b", np.array([[0, 40, 40]]))
    fails(ValueError, r"images.deep.b.jpg is 1x2(.|\n)*labels.deep.b.png has 1x3")
    Image.new("RGB", (2, 1)).save(inputs.root / "labels" / "deep" / "b.png")
    fails(ValueError, r"labels.deep.b.png is a colour png")
    (inputs.root / "labels" / "deep" / "b.png").unlink()
    fails(FileNotFoundError, r"labels has no file (.|\n)*images.deep.b.jpg")
    inputs.add("deep/b", [[0, 40]], [[0, 1]])
    (inputs.root / "instances" / "a.png").unlink()
    fails(FileNotFoundError, r"instances has no file (.|\n)*images.a.jpg")
    inputs.add("a", [[0, 40]], [[0, 1]])
    (inputs.root / "images" / "a.jpg").unlink()
    fails(FileNotFoundError, r"images has no file (.|\n)*labels.a.png")
    inputs.add("a", [[0, 40]], [[0, 1]])
    fails(FileNotFoundError, "nowhere", labels=inputs.root / "nowhere")
    fails(ValueError, "workers is 0", workers=0)


def test_empty_folder_is_named(inputs):
    with pytest.raises(FileNotFoundError, match=r"images holds no files \*.jpg"):
        inputs.convert()


def test_categories_and_options_must_be_consistent(tmp_path):
    inputs = Inputs(tmp_path)
    inputs.add("a", [[0, 40]], [[0, 1]])
    with pytest.raises(ValueError, match=r"things \(car, cat\)(.|\n)*--instances"):
        inputs.convert(instances=None)
    with pytest.raises(ValueError, match="40 is ignored"):
        inputs.convert(ignore=(40,))
    stuff = [c for c in CATEGORIES if not c["isthing"]]
    (tmp_path / "categories.json").write_text(json.dumps(stuff))
    with pytest.raises(ValueError, match="no category(.|\n)*leave out --instances"):
        inputs.convert()


def test_output_inside_an_input_folder_is_refused(inputs):
    inputs.add("a", [[0, 40]], [[0, 1]])
    for folder in inputs.root / "labels", inputs.root / "images" / "x" / ".." / "y":
        with pytest.raises(ValueError, match="is inside"):
            inputs.convert(output=folder)


def test_more_segments_than_ids_are_refused(inputs, monkeypatch):
    monkeypatch.setattr(dataset, "_MAX_SEGMENTS", 3)
    inputs.add("a", [[40, 40, 40]], [[1, 2, 3]])
    assert inputs.convert().segments == 3
    inputs.add("b", [[40, 40, 40, 0]], [[1, 2, 3, 0]])
    with pytest.raises(ValueError, match=r"b.png has 4 segments; a panoptic png holds 3"):
        inputs.convert(output=inputs.root / "other")


def test_segment_ids_may_need_three_bytes(inputs):
    numbers = np.arange(300 * 300).reshape(300, 300)
    labels = np.where(numbers < 60000, 40, 7)
    inputs.add("a", labels, numbers % 60000 + 1)
    inputs.convert()
    content, (segment_map,) = inputs.result()
    assert len(np.unique(segment_map)) == 300 * 300 == segment_map.max()
    assert len(content["annotations"][0]["segments_info"]) == 300 * 300
