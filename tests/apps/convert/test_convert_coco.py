"""Conversion of a COCO instance JSON and stuff annotations to a panoptic data set."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panoptic_files import check_segments, contents, read_result, save
from PIL import Image
from pycocotools import mask as coco_mask

from eseg_d2.apps.convert import convert_coco

THINGS = [
    {"id": 18, "name": "dog", "supercategory": "animal", "keypoints": ["nose"]},
    {"id": 1, "name": "person", "supercategory": "person"},
]
STUFF = [{"id": 92, "name": "sky"}, {"id": 0, "name": "grass"}]


def box(top, left, bottom, right):
    """Return a rectangle of whole pixels as a polygon in COCO's format."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def uncompressed(mask):
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=2))
    counts = np.diff(edges, prepend=0).tolist()
    return {"size": list(mask.shape), "counts": counts}


class Inputs:
    """Builds images, stuff PNGs and JSON files, and converts them."""

    def __init__(self, root):
        self.root = root
        self.content = {"images": [], "annotations": [], "categories": THINGS}
        self.stuff_content = {"images": [], "annotations": [], "categories": STUFF}
        self.arguments = {
            "images": root / "images",
            "instances": root / "instances.json",
            "stuff": root / "stuff",
            "stuff_categories": root / "stuff.json",
            "output": root / "out",
            "workers": 1,
        }
        (root / "stuff.json").write_text(json.dumps(STUFF))

    def add(self, file_name, stuff, *annotations):
        stuff = np.asarray(stuff)
        number = 7 + len(self.content["images"])
        height, width = stuff.shape
        self.content["images"].append(
            {"id": number, "file_name": file_name, "height": height, "width": width}
        )
        for category, segmentation, iscrowd in annotations:
            entry = {"id": 100 + len(self.content["annotations"]), "image_id": number}
            entry |= {"category_id": category, "segmentation": segmentation, "iscrowd": iscrowd}
            self.content["annotations"].append(entry)
        self.stuff_content["images"].append({**self.content["images"][-1]})
        for category in sorted(set(np.unique(stuff).tolist()) - {255}):
            self.add_stuff(number, category, compressed(stuff == category))
        save(self.root / "images" / file_name, np.zeros((height, width, 3), np.uint8))
        png = (self.root / "stuff" / file_name).with_suffix(".png")
        save(png, stuff.astype(np.uint8))

    def add_stuff(self, image_id, category, segmentation):
        number = 500 + len(self.stuff_content["annotations"])
        entry = {"id": number, "image_id": image_id, "category_id": category}
        self.stuff_content["annotations"].append({**entry, "segmentation": segmentation})

    def convert_json(self, **changes):
        """Convert with the same stuff annotated in a JSON instead of PNGs."""
        path = self.root / "stuff_rle.json"
        path.write_text(json.dumps(self.stuff_content))
        changes = {"output": self.root / "out_json", **changes}
        return self.convert(**{"stuff": path, "stuff_categories": None, **changes})

    def convert(self, **changes):
        (self.root / "instances.json").write_text(json.dumps(self.content))
        return convert_coco(**{**self.arguments, **changes})

    def result(self, output="out"):
        return read_result(self.root / output)


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path)


def categories_of(segment_map, info):
    lookup = {0: -1, **{s["id"]: s["category_id"] for s in info}}
    return np.vectorize(lookup.get)(segment_map)


def test_categories_and_image_ids_are_kept(inputs):
    inputs.add("a.jpg", np.full((6, 8), 92), (1, box(2, 2, 3, 3), 0), (18, box(1, 1, 5, 5), 0))
    found = inputs.convert()
    content, (info,), _ = inputs.result()
    assert found.hidden == 0 and found.segments == len(info) == 3
    assert all(s["iscrowd"] == 0 for s in info)
    assert content["categories"] == [
        {"id": 18, "name": "dog", "isthing": 1, "supercategory": "animal"},
        {"id": 1, "name": "person", "isthing": 1, "supercategory": "person"},
        {"id": 92, "name": "sky", "isthing": 0},
        {"id": 0, "name": "grass", "isthing": 0},
    ]
    assert content["images"][0]["id"] == content["annotations"][0]["image_id"] == 7


def test_crowds_of_a_class_form_one_segment_below_all_objects(inputs):
    first, second = np.zeros((2, 4, 6), bool)
    first[:, 1], second[:, 5] = True, True
    large = box(0, 0, 4, 3)
    inputs.add(
        "a.jpg",
        np.full((4, 6), 92),
        (1, uncompressed(first), 1),
        (1, compressed(second), 1),
        (18, compressed(second), 1),
        (18, large, 0),
    )
    found = inputs.convert()
    _, (info,), (segment_map,) = inputs.result()
    by_id = {s["id"]: (s["category_id"], s["iscrowd"]) for s in info}
    assert by_id[segment_map[0, 1]] == (18, 0)
    assert by_id[segment_map[0, 5]] == (18, 1)
    assert sorted(by_id.values()) == [(18, 0), (18, 1), (92, 0)]
    assert found.hidden == 0  # crowds do not count as objects

    inputs.content["annotations"] = inputs.content["annotations"][:2]
    inputs.convert(output=inputs.root / "two")
    _, (info,), _ = inputs.result("two")
    (crowd,) = [s for s in info if s["iscrowd"]]
    assert (crowd["category_id"], crowd["area"]) == (1, 8)


def test_hidden_and_empty_objects_are_counted(inputs):
    mask = np.zeros((4, 6), bool)
    mask[1:3, 1:3] = True
    inputs.add(
        "a.jpg",
        np.full((4, 6), 92),
        (1, compressed(mask), 0),
        (18, compressed(mask), 0),
        (1, compressed(~mask & False), 0),
        (1, [[1, 1, 3, 3]], 0),  # a polygon of two points, not a box
        (1, [], 0),
    )
    assert inputs.convert().hidden == 4
    _, (info,), (segment_map,) = inputs.result()
    assert len(info) == 2 == segment_map.max()
    assert not inputs.convert().made and inputs.convert().hidden == 4


def test_images_without_things_or_stuff(inputs):
    inputs.add("a.jpg", np.full((3, 3), 255))
    inputs.add("town/b.png", np.full((2, 5), 0))
    inputs.add("c.jpeg", np.full((4, 4), 255), (1, box(0, 0, 4, 4), 0))
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(inputs.root / "stuff" / "other.png")
    found = inputs.convert(workers=2)
    content, infos, _ = inputs.result()
    assert [len(info) for info in infos] == [0, 1, 1]
    assert [a["file_name"] for a in content["annotations"]] == ["a.png", "town/b.png", "c.png"]
    assert found.absent == ("dog", "sky")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 8), st.integers(0, 10**6))
def test_result_equals_painting_pixel_by_pixel(tmp_path_factory, height, width, count, seed):
    inputs = Inputs(tmp_path_factory.mktemp("coco"))
    rng = np.random.default_rng(seed)
    stuff = rng.choice([92, 0, 255], (height, width))
    masks = []
    for _ in range(count):
        mask = np.zeros((height, width), bool)
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + rng.integers(1, 20), left : left + rng.integers(1, 20)] = True
        mask &= rng.random(mask.shape) < rng.choice([0.6, 1.0])
        masks.append(mask)
    kinds = [(int(rng.choice([1, 18])), int(rng.random() < 0.3)) for _ in masks]
    form = [compressed, uncompressed]
    annotations = [
        (category, form[rng.integers(2)](mask), crowd)
        for mask, (category, crowd) in zip(masks, kinds, strict=True)
    ]
    inputs.add("a.jpg", stuff, *annotations)
    found = inputs.convert()
    _, (info,), (segment_map,) = inputs.result()
    lookup = {0: None, **{s["id"]: (s["category_id"], s["iscrowd"]) for s in info}}
    owner = {}
    for row, column in np.ndindex(height, width):
        here = [i for i, mask in enumerate(masks) if mask[row, column]]
        objects = [i for i in here if not kinds[i][1]]
        kind = lookup[segment_map[row, column]]
        if objects:
            smallest = min(masks[i].sum() for i in objects)
            top = [i for i in objects if masks[i].sum() == smallest][-1]
            assert kind == kinds[top]
            assert owner.setdefault(segment_map[row, column], top) == top
        elif here:
            assert kind in [kinds[i] for i in here]
        else:
            value = stuff[row, column]
            assert kind == (None if value == 255 else (value, 0))
    check_segments(segment_map, info)
    objects = [i for i, (_, crowd) in enumerate(kinds) if not crowd]
    assert found.hidden == len(objects) - len(owner)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [4, 4], "counts": [24]}, r"size \[4, 4\]; expected \[4, 6\]"),
        ({"size": [4, 6], "counts": [20]}, "do not add up"),
        ({"size": [4, 6], "counts": [30, -6]}, "do not add up"),
        ({"size": [4, 6], "counts": [11.5, 12]}, "do not add up"),
        ({"size": [4, 6], "counts": ""}, "do not add up"),
        ({"size": [4, 6], "counts": "00"}, "do not add up"),
        ({"size": [4, 6], "counts": "\xff~"}, "do not add up"),
        ({"size": [4, 6], "counts": None}, "do not add up"),
        ({}, "size None"),
        ([[1, 2, 3, 4, 5]], "odd number"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not finite"),
        ([1, 2, 3, 4, 5, 6], "expected polygons"),
        (["abcdef"], "expected polygons"),
    ],
)
def test_invalid_mask_is_named(inputs, segmentation, message):
    inputs.add("a.jpg", np.full((4, 6), 92), (1, segmentation, 0))
    with pytest.raises(
        ValueError, match=f"instances.json: annotation 100 of a.jpg(.|\n)*{message}"
    ):
        inputs.convert()


def test_polygon_is_clipped_at_the_image_border(inputs):
    inputs.add("a.jpg", np.full((4, 6), 92), (1, box(-5, 4, 2, 60), 0))
    inputs.convert()
    _, (info,), (segment_map,) = inputs.result()
    expected = np.full((4, 6), 92)
    expected[:2, 4:] = 1
    assert (categories_of(segment_map, info) == expected).all()


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("images", {"file_name": "../a.jpg"}, "paths below"),
        ("images", {"height": 5}, r"a.jpg is \(5, 6\)(.|\n)*\(4, 6\)"),
        ("annotations", {"category_id": 92}, "annotation 100(.|\n)*92"),
        ("annotations", {"category_id": [1]}, r"category_id \[1\]"),
        ("annotations", {"segmentation": None}, "segmentation None"),
        ("annotations", {"iscrowd": 2}, "iscrowd 2, expected 0 or 1"),
        ("annotations", {"image_id": 9}, "the images 9, which"),
        ("categories", {"id": 92}, "several categories have the id 92"),
        ("categories", {"name": "sky"}, "several categories have the name sky"),
    ],
)
def test_wrong_value_of_the_json_is_named(inputs, key, change, message):
    inputs.add("a.jpg", np.full((4, 6), 92), (1, box(0, 0, 2, 2), 0))
    inputs.content[key] = [{**inputs.content[key][0], **change}, *inputs.content[key][1:]]
    with pytest.raises(ValueError, match=message):
        inputs.convert()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.pop("images"), "needs the lists images"),
        (lambda c: c["images"].clear(), "lists no images"),
        (lambda c: c["images"][0].pop("width"), r"images\[0\] lacks width"),
        (lambda c: c["annotations"].append(5), r"annotations\[1\] is of type int"),
        (lambda c: c["images"].append(c["images"][0]), "several images have the id 7"),
        (lambda c: c["images"].append({**c["images"][0], "id": 3}), "have the file_name(.|\n)* a$"),
    ],
)
def test_fault_of_the_json_is_named(inputs, spoil, message):
    inputs.add("a.jpg", np.full((4, 6), 92), (1, box(0, 0, 2, 2), 0))
    spoil(inputs.content)
    with pytest.raises(ValueError, match=message):
        inputs.convert()


@pytest.mark.parametrize(
    ("name", "message"), [("b.jpg", "no stuff png for b.jpg"), ("a.png", "images lacks a.png")]
)
def test_missing_file_is_named(inputs, name, message):
    inputs.add("a.jpg", np.full((4, 6), 92))
    inputs.content["images"][0]["file_name"] = name
    with pytest.raises(FileNotFoundError, match=message):
        inputs.convert()


def test_faults_of_stuff_are_named(inputs):
    inputs.add("a.jpg", np.full((4, 6), 93))
    with pytest.raises(ValueError, match="stuff.a.png has pixels with the value 93"):
        inputs.convert()
    inputs.convert(ignore=(93,))
    with pytest.raises(ValueError, match="92 is ignored(.|\n)*stuff.json"):
        inputs.convert(ignore=(92,))
    with pytest.raises(FileNotFoundError, match="no folder"):
        inputs.convert(stuff=inputs.root / "nowhere")


def written(folder):
    files = contents(folder)
    return files, {**json.loads(files.pop("panoptic.json")), "info": None}


@pytest.fixture
def street(inputs):
    """Add two images with stuff, void, a thing and a crowd."""
    stuff = np.full((6, 8), 92)
    stuff[4:] = 0
    stuff[:, 7] = 255
    crowd = np.zeros((6, 8), bool)
    crowd[5, 3:6] = True
    inputs.add("a.jpg", stuff, (1, box(1, 1, 5, 5), 0), (18, uncompressed(crowd), 1))
    inputs.add("town/b.jpg", np.full((4, 6), 92))
    return inputs


def test_stuff_in_a_json_gives_the_same_as_in_pngs(street):
    street.convert()
    street.convert_json()
    assert written(street.root / "out_json") == written(street.root / "out")


def test_stuff_and_things_may_share_one_json(street):
    street.convert()
    both = street.content
    both["annotations"] += street.stuff_content["annotations"]
    both["categories"] = THINGS + [{**c, "isthing": 0} for c in STUFF]
    street.convert(stuff=None, stuff_categories=None, output=street.root / "out_json")
    assert written(street.root / "out_json") == written(street.root / "out")


def test_stuff_may_be_polygons_and_small_stuff_covers_large(inputs):
    inputs.add("a.jpg", np.full((4, 6), 255))
    inputs.add_stuff(7, 0, box(1, 1, 3, 3))
    inputs.add_stuff(7, 92, box(0, 0, 4, 5))
    inputs.add_stuff(7, 92, uncompressed(np.eye(4, 6, k=5) > 0))
    inputs.convert_json()
    _, (info,), (segment_map,) = inputs.result("out_json")
    expected = np.full((4, 6), -1)
    expected[:, :5] = 92
    expected[1:3, 1:3] = 0
    expected[0, 5] = 92
    assert (categories_of(segment_map, info) == expected).all()
    assert len(info) == 2  # one segment per class


def test_categories_of_a_stuff_json_can_be_ignored(street):
    street.convert_json(ignore=(92,))
    _, content = written(street.root / "out_json")
    assert [c["id"] for c in content["categories"]] == [18, 1, 0]
    used = {s["category_id"] for a in content["annotations"] for s in a["segments_info"]}
    assert used == {18, 1, 0}


def test_faults_of_a_stuff_json_are_named(street):
    path = street.root / "stuff.json"
    with pytest.raises(ValueError, match="got no file for the categories of stuff"):
        street.convert(stuff_categories=None)
    with pytest.raises(ValueError, match="stuff.json for the categories of stuff"):
        street.convert_json(stuff_categories=path)
    with pytest.raises(ValueError, match="there is no stuff"):
        street.convert(stuff=None, stuff_categories=None)
    street.stuff_content["categories"] = [*STUFF, {"id": 4, "name": "cow", "isthing": 1}]
    with pytest.raises(ValueError, match="has things .cow"):
        street.convert_json()
    street.stuff_content["categories"] = STUFF[:1]
    with pytest.raises(ValueError, match="stuff_rle.json: annotation 500 has the category id 0"):
        street.convert_json()
    street.stuff_content["categories"] = STUFF
    del street.stuff_content["images"][1]
    with pytest.raises(ValueError, match="does not list the ids of the images town/b.jpg"):
        street.convert_json()
    street.content["categories"] = [{**c, "isthing": 0} for c in THINGS]
    with pytest.raises(ValueError, match="has stuff of its own .dog, person"):
        street.convert()
