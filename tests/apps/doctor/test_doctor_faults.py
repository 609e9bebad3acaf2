"""Every kind of fault is found and named, without any other finding."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from special_files import make

from eseg_d2.apps.doctor.findings import KINDS, SEVERITIES

SEGMENTS = "annotations/0/segments_info"
VALUES = [
    # code, id of the finding, place of the value in the JSON, the wrong value (...: none)
    ("json-structure", None, "annotations", ...),
    ("json-structure", None, "annotations", {"11": {}}),
    ("json-structure", None, "images", {"1": {}}),
    ("json-structure", None, "categories", []),
    ("category-incomplete", None, "categories/0", "road"),
    ("category-incomplete", None, "categories/0/id", "7"),
    ("category-incomplete", None, "categories/0/id", True),
    ("category-incomplete", None, "categories/0/id", ...),
    ("category-incomplete", 7, "categories/0/name", ""),
    ("category-incomplete", 7, "categories/0/name", ...),
    ("category-incomplete", 7, "categories/0/color", [300, 0, 0]),
    ("category-incomplete", 90, "categories/1/isthing", None),
    ("category-incomplete", 90, "categories/1/isthing", "no"),
    ("image-incomplete", None, "images/0", 5),
    ("image-incomplete", None, "images/0/id", ...),
    ("image-incomplete", None, "images/0/id", [11]),
    ("image-incomplete", 11, "images/0/width", ...),
    ("image-incomplete", 11, "images/0/width", "40"),
    ("image-incomplete", 11, "images/0/height", 0),
    ("image-incomplete", 11, "images/0/height", 24.5),
    ("image-incomplete", 11, "images/0/file_name", ...),
    ("image-incomplete", 11, "images/0/file_name", "11.jpg\0"),
    ("image-incomplete", 11, "images/0/file_name", "11\ud800.jpg"),
    ("image-duplicate-file-name", 12, "images/1/file_name", "11.jpg"),
    ("annotation-incomplete", None, "annotations/1", None),
    ("annotation-incomplete", None, "annotations/1/image_id", ...),
    ("annotation-incomplete", 12, "annotations/1/segments_info", ...),
    ("annotation-incomplete", 12, "annotations/1/segments_info", {}),
    ("annotation-incomplete", 12, "annotations/1/file_name", None),
    ("annotation-duplicate-file-name", 12, "annotations/1/file_name", "11.png"),
    ("annotation-without-image", "12", "annotations/1/image_id", "12"),
    ("annotation-without-image", 12, "images/1", ...),
    ("image-without-annotation", 12, "annotations/1", ...),
    ("path-outside-root", 11, "images/0/file_name", "../images/11.jpg"),
    ("path-outside-root", 11, "annotations/0/file_name", "a/../../11.png"),
    ("segment-incomplete", None, f"{SEGMENTS}/0", 1),
    ("segment-incomplete", None, f"{SEGMENTS}/0/id", ...),
    ("segment-incomplete", None, f"{SEGMENTS}/0/id", True),
    ("segment-incomplete", None, f"{SEGMENTS}/0/id", float("nan")),
    ("segment-incomplete", 1, f"{SEGMENTS}/0/category_id", ...),
    ("segment-incomplete", 1, f"{SEGMENTS}/0/category_id", [7]),
    ("segment-incomplete", 1, f"{SEGMENTS}/0/category_id", False),
    ("segment-incomplete", 1, f"{SEGMENTS}/0/category_id", 7.5),
    ("segment-id-range", 0, f"{SEGMENTS}/0/id", 0),
    ("segment-id-range", -1, f"{SEGMENTS}/0/id", -1),
    ("segment-id-range", 1 << 24, f"{SEGMENTS}/0/id", 1 << 24),
    ("segment-duplicate-id", 1, f"{SEGMENTS}/1/id", 1),
    ("stuff-in-parts", 7, f"{SEGMENTS}/1/category_id", 7),
    ("unknown-category", 8, f"{SEGMENTS}/2/category_id", 8),
    ("iscrowd-missing", 1, f"{SEGMENTS}/0/iscrowd", ...),
    ("iscrowd-invalid", 1, f"{SEGMENTS}/0/iscrowd", 2),
    ("iscrowd-invalid", 1, f"{SEGMENTS}/0/iscrowd", {}),
    ("iscrowd-invalid", 1, f"{SEGMENTS}/0/iscrowd", 0.5),
    ("iscrowd-invalid", 1, f"{SEGMENTS}/0/iscrowd", None),
    ("crowd-stuff", 1, f"{SEGMENTS}/0/iscrowd", 1),
    ("area-missing", 300, f"{SEGMENTS}/1/area", ...),
    ("area-missing", 300, f"{SEGMENTS}/1/area", "216"),
    ("bbox-missing", 300, f"{SEGMENTS}/1/bbox", ...),
    ("bbox-missing", 300, f"{SEGMENTS}/1/bbox", list("abcd")),
]
TEXTS = [
    # code, change of the JSON's text, which is written in Latin 1
    ("json-invalid", lambda text: text[:-20]),
    ("json-invalid", lambda text: ""),
    ("json-invalid", lambda text: "\xff\xfe\0\x81"),
    ("json-invalid", lambda text: text.replace("road", "stra\u00dfe")),
    ("json-invalid", lambda text: "[" * 200_000),
    ("json-structure", lambda text: f"[{text}]"),
    ("json-duplicate-key", lambda text: text[:-1] + ', "images": []}'),
    ("json-duplicate-key", lambda text: text.replace('"iscrowd"', '"iscrowd": 1, "iscrowd"', 1)),
]
EXIF_TURNED = Image.Exif()
EXIF_TURNED[0x0112] = 6


def write_16_bits(path):
    pixels = np.asarray(Image.open(path)).astype(np.uint16)
    cv2.imwrite(str(path), pixels[..., ::-1])


def duplicate_category_name(train):
    train.categories.append({"id": 91, "name": "car", "isthing": 1})
    for index in range(2):
        train.segments(index)[2]["category_id"] = 91


def remove_all_segments(train):
    train.redraw(lambda ids: ids.fill(0))
    train.segments().clear()


def change_segments(train, key, value_of):
    for segment in train.segments():
        segment[key] = value_of(*segment["bbox"])


def make_all_cars_crowds(train):
    for index in range(3):
        for segment in train.segments(index):
            segment["iscrowd"] = int(segment["category_id"] == 90)


JSON, IMAGE, PNG = "panoptic.json", "images/11.jpg", "pngs/11.png"
FAULTS = {
    # (code, id of the finding, its file in the folder of the split): what breaks the split
    ("json-missing", None, JSON): [lambda t: setattr(t, "content", None)],
    ("folder-missing", None, "images"): [lambda t: (t.root / "images").rename(t.root / "x")],
    ("folder-missing", None, "pngs"): [lambda t: (t.root / "pngs").rename(t.root / "x")],
    ("category-duplicate-id", 90, JSON): [
        lambda t: t.categories.append({"id": 90, "name": "truck", "isthing": 1})
    ],
    ("category-duplicate-name", 91, JSON): [duplicate_category_name],
    ("image-duplicate-id", 11, JSON): [lambda t: t.images.append(t.images[0])],
    ("annotation-duplicate", 11, JSON): [lambda t: t.annotations.append(t.annotations[0])],
    ("path-outside-root", 11, JSON): [lambda t: t.put("images/0/file_name", str(t.image()))],
    # files
    ("image-missing", 11, IMAGE): [lambda t: t.image().unlink()],
    ("image-missing", 11, "images/11.JPG"): [lambda t: t.put("images/0/file_name", "11.JPG")],
    ("image-missing", 11, "images/http://x.org/11.jpg"): [
        lambda t: t.put("images/0/file_name", "http://x.org/11.jpg")
    ],
    ("image-zero-bytes", 11, IMAGE): [lambda t: t.image().write_bytes(b"")],
    ("image-unreadable", 11, IMAGE): [
        lambda t: t.image().write_bytes(t.image().read_bytes()[:800]),
        lambda t: t.image().write_text("<html>404</html>"),
        lambda t: make("folder", t.image()),
        lambda t: t.edit_image(lambda image: image.convert("F"), format="TIFF"),
    ],
    ("png-missing", 11, PNG): [lambda t: t.png().unlink()],
    ("png-missing", 11, "pngs/pngs\\11.png"): [
        lambda t: t.put("annotations/0/file_name", "pngs\\11.png")
    ],
    ("png-zero-bytes", 11, PNG): [lambda t: t.png().write_bytes(b"")],
    ("png-unreadable", 11, PNG): [
        lambda t: t.png().write_bytes(t.png().read_bytes()[:100]),
        lambda t: t.png().write_bytes(t.png().read_bytes()[:10]),
    ],
    ("png-format", 11, PNG): [
        lambda t: t.edit_png(lambda png: png.convert("L")),
        lambda t: t.edit_png(lambda png: png.convert("LA")),
        lambda t: t.edit_png(lambda png: png.convert("P")),
        lambda t: t.edit_png(lambda png: png, format="JPEG"),
        lambda t: write_16_bits(t.png()),
    ],
    ("png-bgr", 11, PNG): [lambda t: t.edit_png(lambda png: Image.merge("RGB", png.split()[::-1]))],
    ("size-mismatch", 11, PNG): [
        lambda t: t.edit_image(lambda image: image.resize((20, 12))),
        lambda t: t.edit_image(lambda image: image, exif=EXIF_TURNED),
        lambda t: t.edit_png(lambda png: png.resize((20, 12), Image.Resampling.NEAREST)),
    ],
    ("json-size", 11, IMAGE): [lambda t: t.put("images/0/width", 41)],
    # pixels
    ("unlisted-segment", 5, PNG): [
        lambda t: t.redraw(lambda ids: ids.__setitem__((0, slice(0, 3)), 5))
    ],
    ("unlisted-segment", 1, PNG): [lambda t: t.segments().clear()],
    ("empty-segment", 40, PNG): [lambda t: t.segments().append({**t.segments()[2], "id": 40})],
    ("all-void", 11, PNG): [lambda t: t.redraw(lambda ids: ids.fill(0))],
    ("no-segments", 11, PNG): [remove_all_segments],
    ("void-as-white", 0xFFFFFF, PNG): [
        lambda t: t.redraw(lambda ids: ids.__setitem__(ids == 0, 0xFFFFFF))
    ],
    ("wrong-area", 70000, PNG): [lambda t: t.put(f"{SEGMENTS}/2/area", 25)],
    ("wrong-area", 1, PNG): [lambda t: change_segments(t, "area", lambda x, y, w, h: w * h)],
    ("wrong-bbox", 70000, PNG): [
        lambda t: t.put(f"{SEGMENTS}/2/bbox/2", 8),
        lambda t: t.put(f"{SEGMENTS}/2/bbox/0", float("nan")),
    ],
    ("wrong-bbox", 1, PNG): [
        lambda t: change_segments(t, "bbox", lambda x, y, w, h: [x, y, x + w, y + h]),
        lambda t: t.edit_png(lambda png: png.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
    ],
    # the data set as a whole
    ("duplicate-image", 13, "images/13.jpg"): [
        lambda t: t.image(2).write_bytes(t.image().read_bytes())
    ],
    ("image-not-listed", None, "images"): [
        lambda t: Image.new("RGB", (4, 4)).save(t.root / "images" / "unused.jpg")
    ],
    ("class-crowd-only", 90, JSON): [make_all_cars_crowds],
}
CASES = [(*finding, break_it) for finding, ways in FAULTS.items() for break_it in ways]


def check_only_finding(tiny, code, id_, file):
    """Check that a finding with a message and a fix is the only one in both splits."""
    (finding,) = tiny.check().findings
    assert (finding.dataset, finding.code) == ("tiny_train", code)
    assert (finding.id, finding.file) == (id_, file)
    assert file in finding.message
    assert id_ is None or str(id_) in finding.message
    assert finding.fix and finding.severity in SEVERITIES


@pytest.mark.parametrize(("code", "id_", "place", "value"), VALUES)
def test_wrong_value_in_the_json_is_the_only_finding(tiny, code, id_, place, value):
    tiny.train.put(place, value)
    check_only_finding(tiny, code, id_, str(tiny.train.json))


@pytest.mark.parametrize(("code", "change"), TEXTS)
def test_unusable_json_is_the_only_finding(tiny, code, change):
    text = change(json.dumps(tiny.train.content))
    tiny.train.json.write_text(text, "latin-1")
    tiny.train.content = None
    check_only_finding(tiny, code, None, str(tiny.train.json))


@pytest.mark.parametrize(("code", "id_", "file", "break_it"), CASES)
def test_other_fault_is_the_only_finding(tiny, code, id_, file, break_it):
    break_it(tiny.train)
    check_only_finding(tiny, code, id_, f"{tiny.train.root}/{file}")


def test_faults_cover_every_kind_of_finding_in_one_split():
    elsewhere = {"path-unknown", "category-not-registered", "internal", "class-absent"}
    elsewhere |= {"image-in-train-and-val", "class-only-in-val", "categories-differ"}
    assert {code for code, *_ in [*VALUES, *TEXTS, *FAULTS]} == set(KINDS) - elsewhere


def test_findings_of_one_kind_in_an_image_are_merged(tiny):
    for segment in tiny.train.segments():
        del segment["area"]
    (finding,) = tiny.check().findings
    assert finding.code == "area-missing"
    assert "and 2 more" in finding.message


def test_several_faults_are_all_found(tiny):
    tiny.train.image().unlink()
    tiny.train.put(f"{SEGMENTS}/2/area", 25)
    tiny.train.put(f"{SEGMENTS}/0/iscrowd", ...)
    codes = [f.code for f in tiny.check().findings]
    assert codes == ["image-missing", "wrong-area", "iscrowd-missing"]
