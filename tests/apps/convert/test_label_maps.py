"""Conversion of label PNGs and instance PNGs to a panoptic data set."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panoptic_files import LabelMaps, check_segments, read_result
from PIL import Image

from eseg_d2.apps.convert import convert_label_maps, dataset

CATEGORIES = [
    {"id": 40, "name": "car", "isthing": 1},
    {"id": 0, "name": "sky", "isthing": 0},
    {"id": 7, "name": "cat", "isthing": 1},
    {"id": 300, "name": "grass", "isthing": 0},
]
IGNORED = 255


class Inputs(LabelMaps):
    """Builds folders, and converts them."""

    def __init__(self, root, categories=CATEGORIES):
        super().__init__(root, categories)

    def convert(self, **changes):
        return convert_label_maps(**{**self.arguments, **changes})

    def result(self):
        return read_result(self.arguments["output"])


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path)


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
    content, (info,), (segment_map,) = inputs.result()
    check_segments(segment_map, info)
    # by category as listed, then by instance: a crowd of cars (1), two cars, sky, two cats, grass
    assert segment_map.tolist() == [[4, 4, 7, 2, 2, 1], [3, 3, 1, 5, 6, 0]]
    assert [s["category_id"] for s in info] == [40, 40, 40, 0, 7, 7, 300]
    assert [s["iscrowd"] for s in info] == [1, 0, 0, 0, 0, 0, 0]
    assert found.segments == 7
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
    content, (info,), (segment_map,) = inputs.result()
    check_segments(segment_map, info)
    things = np.isin(labels, (40, 7))
    assert ((segment_map == 0) == (labels == IGNORED)).all()
    pairs = {}
    keys = zip(labels.flat, np.where(things, instances, 0).flat, strict=True)
    for (label, instance), segment in zip(keys, segment_map.flat, strict=True):
        if label != IGNORED:
            assert pairs.setdefault((label, instance), segment) == segment
    assert len(set(pairs.values())) == len(pairs) == len(info)
    kinds = {s["id"]: (s["category_id"], s["iscrowd"]) for s in info}
    for (label, instance), segment in pairs.items():
        assert kinds[segment] == (label, int(label in (40, 7) and instance == 0))


def test_image_of_void_has_no_segments(inputs):
    inputs.add("a", np.full((3, 4), IGNORED), np.zeros((3, 4)))
    inputs.add("b", np.full((1, 1), 300), np.zeros((1, 1)))
    found = inputs.convert()
    _, infos, maps = inputs.result()
    assert infos[0] == [] and not maps[0].any()
    assert (found.images, found.segments) == (2, 1)
    assert found.absent == ("car", "sky", "cat")


def test_subfolders_suffixes_and_order_of_images(inputs):
    for name, suffix in (("town/b", ".png"), ("a.x", ".jpeg"), ("town/a", ".JPG")):
        inputs.add(name, np.full((2, 2), 300), np.zeros((2, 2)), suffix=suffix)
    inputs.convert(workers=2)
    content, *_ = inputs.result()
    assert [i["file_name"] for i in content["images"]] == ["a.x.jpeg", "town/a.JPG", "town/b.png"]
    pngs = [a["file_name"] for a in content["annotations"]]
    assert pngs == ["a.x.png", "town/a.png", "town/b.png"]
    assert [i["id"] for i in content["images"]] == [1, 2, 3]


def test_data_set_of_stuff_needs_no_instances(tmp_path):
    inputs = Inputs(tmp_path, [{"id": 0, "name": "background", "isthing": False},
                               {"id": 255, "name": "wall", "isthing": False}])  # fmt: skip
    inputs.add("a", [[0, 255], [9, 0]])
    found = inputs.convert(instances=None, ignore=(9,))
    assert found.segments == 2
    *_, (segment_map,) = inputs.result()
    assert (segment_map == [[1, 2], [0, 1]]).all()


def test_faults_of_files_are_named(inputs):
    inputs.add("a", [[0, 40]], [[0, 1]])
    inputs.add("deep/b", [[0, 40]], [[0, 1]])
    assert not inputs.arguments["output"].exists()

    def fails(error, message, **changes):
        with pytest.raises(error, match=message):
            inputs.convert(**changes)
        assert not (inputs.root / "output" / "panoptic.json").exists()

    inputs.write("labels", "deep/b", [[0, 41]])
    fails(ValueError, r"deep.b.png has pixels with the value 41(.|\n)*--ignore")
    inputs.write("labels", "deep/b", [[0, 40, 40]])
    fails(ValueError, r"instances.deep.b.png is 1x2(.|\n)*labels.deep.b.png is 1x3")
    inputs.write("instances", "deep/b", [[0, 40, 40]])
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
    _, (info,), (segment_map,) = inputs.result()
    assert len(np.unique(segment_map)) == 300 * 300 == segment_map.max() == len(info)
