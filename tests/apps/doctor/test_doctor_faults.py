"""Every kind of fault is found and named, without any other finding."""

import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from eseg_d2.apps.doctor.findings import KINDS, SEVERITIES

FAULTS = {}


def fault(code, *, id=None):
    """Register a function that breaks the data set and returns the file of the finding."""

    def register(function):
        FAULTS[function.__name__] = code, id, function
        return function

    return register


# The JSON as a whole


@fault("json-missing")
def no_json(train):
    train.content = None
    return train.json


@fault("json-invalid")
def cut_json(train):
    train.json.write_text(json.dumps(train.content)[:-20])
    train.content = None
    return train.json


@fault("json-invalid")
def binary_json(train):
    train.json.write_bytes(b"\xff\xfe\x00\x81")
    train.content = None
    return train.json


@fault("json-invalid")
def empty_json(train):
    train.json.write_text("")
    train.content = None
    return train.json


@fault("json-invalid")
def endlessly_nested_json(train):
    train.json.write_text("[" * 200_000)
    train.content = None
    return train.json


@fault("json-structure")
def list_as_json(train):
    train.content = [train.content]
    return train.json


@fault("json-structure")
def no_annotations_key(train):
    del train.content["annotations"]
    return train.json


@fault("json-structure")
def images_as_dict(train):
    train.content["images"] = {"1": {}}
    return train.json


@fault("json-structure")
def empty_categories(train):
    train.content["categories"] = []
    return train.json


@fault("folder-missing")
def no_image_folder(train):
    os.rename(train.root / "images", train.root / "elsewhere")
    return train.root / "images"


@fault("folder-missing")
def no_png_folder(train):
    os.rename(train.root / "pngs", train.root / "elsewhere")
    return train.root / "pngs"


@fault("json-duplicate-key")
def list_of_images_twice(train):
    text = json.dumps(train.content)
    train.json.write_text(text[:-1] + ', "images": []}')
    train.content = None
    return train.json


@fault("json-duplicate-key")
def iscrowd_twice_in_a_segment(train):
    text = json.dumps(train.content).replace('"iscrowd": 0', '"iscrowd": 0, "iscrowd": 1', 1)
    train.json.write_text(text)
    train.content = None
    return train.json


@fault("json-invalid")
def json_in_latin_1(train):
    train.categories[0]["name"] = "stra\u00dfe"
    text = json.dumps(train.content, ensure_ascii=False)
    train.json.write_bytes(text.encode("latin-1"))
    train.content = None
    return train.json


@fault("json-structure")
def annotations_as_dict(train):
    train.content["annotations"] = {str(a["image_id"]): a for a in train.annotations}
    return train.json


# Categories


@fault("category-incomplete")
def category_id_as_text(train):
    train.categories[0]["id"] = "7"
    return train.json


@fault("category-incomplete")
def category_id_true(train):
    train.categories[0]["id"] = True
    return train.json


@fault("category-incomplete", id=7)
def category_with_empty_name(train):
    train.categories[0]["name"] = ""
    return train.json


@fault("category-incomplete", id=7)
def category_with_invalid_color(train):
    train.categories[0]["color"] = [300, 0, 0]
    return train.json


@fault("category-incomplete", id=90)
def category_with_null_isthing(train):
    train.categories[1]["isthing"] = None
    return train.json


@fault("category-incomplete")
def category_without_id(train):
    del train.categories[1]["id"]
    return train.json


@fault("category-incomplete", id=3)
def category_without_name(train):
    del train.categories[2]["name"]
    return train.json


@fault("category-incomplete", id=3)
def category_with_text_as_isthing(train):
    train.categories[2]["isthing"] = "no"
    return train.json


@fault("category-incomplete")
def category_as_text(train):
    train.categories[0] = "road"
    return train.json


@fault("category-duplicate-id", id=90)
def category_id_twice(train):
    train.categories.append({"id": 90, "name": "truck", "isthing": 1})
    return train.json


@fault("category-duplicate-name", id=91)
def category_name_twice(train):
    train.categories.append({"id": 91, "name": "car", "isthing": 1})
    for segments in train.segments(), train.segments(1):
        segments[2]["category_id"] = 91
    return train.json


# Images and annotations


@fault("image-incomplete", id=11)
def image_without_width(train):
    del train.images[0]["width"]
    return train.json


@fault("image-incomplete", id=11)
def image_with_zero_height(train):
    train.images[0]["height"] = 0
    return train.json


@fault("image-incomplete", id=11)
def image_without_file_name(train):
    del train.images[0]["file_name"]
    return train.json


@fault("image-incomplete")
def image_without_id(train):
    del train.images[0]["id"]
    return train.json


@fault("image-incomplete")
def image_with_list_as_id(train):
    train.images[0]["id"] = [11]
    return train.json


@fault("image-incomplete")
def image_as_number(train):
    train.images[0] = 5
    return train.json


@fault("annotation-incomplete")
def annotation_without_image_id(train):
    del train.annotations[1]["image_id"]
    return train.json


@fault("annotation-incomplete", id=12)
def annotation_without_segments(train):
    del train.annotations[1]["segments_info"]
    return train.json


@fault("annotation-incomplete", id=12)
def segments_as_dict(train):
    train.annotations[1]["segments_info"] = {}
    return train.json


@fault("annotation-incomplete", id=12)
def annotation_without_file(train):
    train.annotations[1]["file_name"] = None
    return train.json


@fault("annotation-incomplete")
def annotation_as_null(train):
    train.annotations[1] = None
    return train.json


@fault("image-incomplete", id=11)
def width_as_text(train):
    train.images[0]["width"] = "40"
    return train.json


@fault("image-incomplete", id=11)
def height_with_a_fraction(train):
    train.images[0]["height"] = 24.5
    return train.json


@fault("image-incomplete", id=11)
def null_byte_in_a_file_name(train):
    train.images[0]["file_name"] = "11.jpg\0"
    return train.json


@fault("image-incomplete", id=11)
def lone_surrogate_in_a_file_name(train):
    train.images[0]["file_name"] = "11\ud800.jpg"
    return train.json


@fault("annotation-without-image", id="12")
def image_id_as_text_in_the_annotation_only(train):
    train.annotations[1]["image_id"] = "12"
    return train.json


@fault("image-duplicate-id", id=11)
def image_twice(train):
    train.images.append(dict(train.images[0]))
    return train.json


@fault("image-duplicate-file-name", id=12)
def image_file_name_twice(train):
    train.images[1]["file_name"] = train.images[0]["file_name"]
    return train.json


@fault("annotation-duplicate", id=11)
def annotation_twice(train):
    train.annotations.append(json.loads(json.dumps(train.annotations[0])))
    return train.json


@fault("annotation-duplicate-file-name", id=12)
def png_twice(train):
    train.annotations[1]["file_name"] = train.annotations[0]["file_name"]
    return train.json


@fault("image-without-annotation", id=12)
def no_annotation(train):
    del train.annotations[1]
    return train.json


@fault("annotation-without-image", id=12)
def no_image(train):
    del train.images[1]
    return train.json


@fault("path-outside-root", id=11)
def image_outside(train):
    train.images[0]["file_name"] = "../images/11.jpg"
    return train.json


@fault("path-outside-root", id=11)
def absolute_image(train):
    train.images[0]["file_name"] = str(train.image())
    return train.json


@fault("path-outside-root", id=11)
def png_outside(train):
    train.annotations[0]["file_name"] = "a/../../11.png"
    return train.json


# Segments


@fault("segment-incomplete")
def segment_without_id(train):
    del train.segments()[0]["id"]
    return train.json


@fault("segment-incomplete", id=1)
def segment_without_category(train):
    del train.segments()[0]["category_id"]
    return train.json


@fault("segment-incomplete", id=1)
def category_id_as_list(train):
    train.segments()[0]["category_id"] = [7]
    return train.json


@fault("segment-incomplete", id=1)
def category_id_false(train):
    train.segments()[0]["category_id"] = False
    return train.json


@fault("segment-incomplete", id=1)
def category_id_with_a_fraction(train):
    train.segments()[0]["category_id"] = 7.5
    return train.json


@fault("segment-incomplete")
def segment_id_true(train):
    train.segments()[0]["id"] = True
    return train.json


@fault("segment-incomplete")
def segment_id_nan(train):
    train.segments()[0]["id"] = float("nan")
    return train.json


@fault("stuff-in-parts", id=7)
def stuff_in_two_segments(train):
    train.segments()[1]["category_id"] = 7
    return train.json


@fault("segment-incomplete")
def segment_as_number(train):
    train.segments()[0] = 1
    return train.json


@fault("segment-id-range", id=0)
def segment_id_of_void(train):
    train.segments()[0]["id"] = 0
    return train.json


@fault("segment-id-range", id=1 << 24)
def segment_id_beyond_24_bits(train):
    train.segments()[0]["id"] = 1 << 24
    return train.json


@fault("segment-id-range", id=-1)
def negative_segment_id(train):
    train.segments()[0]["id"] = -1
    return train.json


@fault("segment-duplicate-id", id=1)
def segment_id_twice(train):
    train.segments()[1]["id"] = 1
    return train.json


@fault("unknown-category", id=8)
def unknown_category(train):
    for segment in train.segments()[2:4]:
        segment["category_id"] = 8
    return train.json


@fault("iscrowd-missing", id=1)
def no_iscrowd(train):
    del train.segments()[0]["iscrowd"]
    return train.json


@fault("iscrowd-invalid", id=1)
def iscrowd_of_two(train):
    train.segments()[0]["iscrowd"] = 2
    return train.json


@fault("iscrowd-invalid", id=1)
def iscrowd_as_dict(train):
    train.segments()[0]["iscrowd"] = {}
    return train.json


@fault("iscrowd-invalid", id=1)
def iscrowd_of_a_half(train):
    train.segments()[0]["iscrowd"] = 0.5
    return train.json


@fault("iscrowd-invalid", id=1)
def iscrowd_null(train):
    train.segments()[0]["iscrowd"] = None
    return train.json


@fault("crowd-stuff", id=1)
def crowd_of_stuff(train):
    train.segments()[0]["iscrowd"] = 1
    return train.json


@fault("area-missing", id=300)
def no_area(train):
    del train.segments()[1]["area"]
    return train.json


@fault("area-missing", id=300)
def area_as_text(train):
    train.segments()[1]["area"] = "216"
    return train.json


@fault("bbox-missing", id=300)
def no_bbox(train):
    del train.segments()[1]["bbox"]
    return train.json


@fault("bbox-missing", id=300)
def bbox_of_strings(train):
    train.segments()[1]["bbox"] = list("abcd")
    return train.json


# Files


@fault("image-missing", id=11)
def missing_image(train):
    train.image().unlink()
    return train.image()


@fault("image-missing", id=11)
def file_name_in_other_case(train):
    train.images[0]["file_name"] = "11.JPG"
    return train.root / "images" / "11.JPG"


@fault("image-missing", id=11)
def file_name_is_a_url(train):
    train.images[0]["file_name"] = "http://example.org/11.jpg"
    return f"{train.root}/images/http://example.org/11.jpg"


@fault("image-unreadable", id=11)
def file_name_is_a_folder(train):
    (train.root / "images" / "11").mkdir()
    train.images[0]["file_name"] = "11"
    return train.root / "images" / "11"


@fault("image-unreadable", id=11)
def image_of_floating_point_numbers(train):
    Image.fromarray(np.zeros((24, 40), np.float32)).save(train.image(), format="TIFF")
    return train.image()


@fault("image-zero-bytes", id=11)
def empty_image(train):
    train.image().write_bytes(b"")
    return train.image()


@fault("image-unreadable", id=11)
def cut_image(train):
    data = train.image().read_bytes()
    train.image().write_bytes(data[: len(data) * 2 // 3])
    return train.image()


@fault("image-unreadable", id=11)
def text_as_image(train):
    train.image().write_text("<html>404</html>")
    return train.image()


@fault("image-unreadable", id=11)
def folder_as_image(train):
    train.image().unlink()
    train.image().mkdir()
    return train.image()


@fault("png-missing", id=11)
def missing_png(train):
    train.png().unlink()
    return train.png()


@fault("png-zero-bytes", id=11)
def empty_png(train):
    train.png().write_bytes(b"")
    return train.png()


@fault("png-unreadable", id=11)
def cut_png(train):
    data = train.png().read_bytes()
    train.png().write_bytes(data[: len(data) // 2])
    return train.png()


@fault("png-unreadable", id=11)
def png_header_only(train):
    train.png().write_bytes(train.png().read_bytes()[:10])
    return train.png()


@fault("png-format", id=11)
def grey_png(train):
    Image.open(train.png()).convert("L").save(train.png())
    return train.png()


@fault("png-missing", id=11)
def png_with_a_windows_path_separator(train):
    train.annotations[0]["file_name"] = "pngs\\11.png"
    return train.root / "pngs" / "pngs\\11.png"


@fault("png-format", id=11)
def png_of_16_bits(train):
    pixels = np.asarray(Image.open(train.png())).astype(np.uint16)
    cv2.imwrite(str(train.png()), pixels[..., ::-1])
    return train.png()


@fault("png-format", id=11)
def grey_png_with_alpha(train):
    Image.open(train.png()).convert("LA").save(train.png())
    return train.png()


@fault("png-bgr", id=11)
def png_with_red_and_blue_swapped(train):
    pixels = np.asarray(Image.open(train.png()))
    Image.fromarray(pixels[..., ::-1].copy()).save(train.png())
    return train.png()


@fault("png-format", id=11)
def palette_png(train):
    Image.open(train.png()).quantize().save(train.png())
    return train.png()


@fault("png-format", id=11)
def jpeg_named_png(train):
    Image.open(train.png()).save(train.png(), format="JPEG")
    return train.png()


@fault("size-mismatch", id=11)
def smaller_image(train):
    Image.open(train.image()).resize((20, 12)).save(train.image())
    return train.png()


@fault("size-mismatch", id=11)
def smaller_png(train):
    Image.open(train.png()).resize((20, 12), Image.Resampling.NEAREST).save(train.png())
    return train.png()


@fault("json-size", id=11)
def wrong_width_in_json(train):
    train.images[0]["width"] += 1
    return train.image()


@fault("size-mismatch", id=11)
def image_turned_by_exif(train):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(train.image()).save(train.image(), exif=exif)
    return train.png()


# Pixels


@fault("unlisted-segment", id=5)
def unlisted_pixels(train):
    train.redraw(lambda ids: ids.__setitem__((0, slice(0, 3)), 5))
    return train.png()


@fault("unlisted-segment", id=1)
def segments_removed(train):
    train.segments().clear()
    return train.png()


@fault("empty-segment", id=40)
def segment_without_pixels(train):
    train.segments().append({**train.segments()[2], "id": 40})
    return train.png()


@fault("all-void", id=11)
def png_of_void_only(train):
    train.redraw(lambda ids: ids.fill(0))
    return train.png()


@fault("no-segments", id=11)
def nothing_annotated(train):
    train.redraw(lambda ids: ids.fill(0))
    train.segments().clear()
    return train.png()


@fault("wrong-area", id=70000)
def wrong_area(train):
    train.segments()[2]["area"] += 1
    return train.png()


@fault("wrong-bbox", id=70000)
def wrong_bbox(train):
    train.segments()[2]["bbox"][2] += 2
    return train.png()


@fault("wrong-bbox", id=70000)
def bbox_of_nan(train):
    train.segments()[2]["bbox"][0] = float("nan")
    return train.png()


@fault("void-as-white", id=0xFFFFFF)
def white_void(train):
    train.redraw(lambda ids: ids.__setitem__(ids == 0, 0xFFFFFF))
    return train.png()


@fault("wrong-bbox", id=1)
def png_upside_down(train):
    Image.open(train.png()).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(train.png())
    return train.png()


@fault("wrong-bbox", id=1)
def bboxes_as_two_corners(train):
    for segment in train.segments():
        x, y, w, h = segment["bbox"]
        segment["bbox"] = [x, y, x + w, y + h]
    return train.png()


@fault("wrong-area", id=1)
def areas_of_the_bboxes(train):
    for segment in train.segments():
        segment["area"] = segment["bbox"][2] * segment["bbox"][3]
    return train.png()


# The data set as a whole


@fault("duplicate-image", id=13)
def image_copied(train):
    train.image(2).write_bytes(train.image(0).read_bytes())
    return train.image(2)


@fault("image-not-listed")
def image_that_is_not_listed(train):
    Image.new("RGB", (4, 4)).save(train.root / "images" / "unused.jpg")
    return train.root / "images"


@fault("class-crowd-only", id=90)
def cars_are_all_crowds(train):
    for index in range(3):
        for segment in train.segments(index):
            segment["iscrowd"] = int(segment["category_id"] == 90)
    return train.json


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_the_only_finding(tiny, name):
    code, id_, break_it = FAULTS[name]
    file = break_it(tiny.train)
    report = tiny.check()
    found = [f for f in report.findings if f.dataset == "tiny_train"]
    assert [(f.code, f.id, f.file) for f in found] == [(code, id_, str(file))]
    (finding,) = found
    assert str(file) in finding.message
    assert finding.fix and finding.severity in SEVERITIES
    if id_ is not None:
        assert str(id_) in finding.message
    assert report.findings == found


def test_faults_cover_every_kind_of_finding_in_one_split():
    elsewhere = {"path-unknown", "category-not-registered", "internal", "class-absent"}
    elsewhere |= {"image-in-train-and-val", "class-only-in-val", "categories-differ"}
    assert {code for code, *_ in FAULTS.values()} == set(KINDS) - elsewhere


def test_findings_of_one_kind_in_an_image_are_merged(tiny):
    for segment in tiny.train.segments():
        del segment["area"]
    (finding,) = tiny.check().findings
    assert finding.code == "area-missing"
    assert "and 2 more" in finding.message


def test_several_faults_are_all_found(tiny):
    for break_it in missing_image, wrong_area, no_iscrowd:
        break_it(tiny.train)
    codes = [f.code for f in tiny.check().findings]
    assert codes == ["image-missing", "wrong-area", "iscrowd-missing"]
