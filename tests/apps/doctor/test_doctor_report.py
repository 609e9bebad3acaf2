"""The report as text, as JSON and as a page."""

import json
import re

import pytest
from markupsafe import escape

from eseg_d2.apps.doctor import format_page, format_report

EVIL = '<img src=x onerror="alert(1)">&'


@pytest.fixture
def broken(tiny):
    """Report on a data set with a wrong area and seven images without annotations."""
    for id_ in range(101, 108):
        tiny.train.images.append({"id": id_, "file_name": f"{id_}.jpg", "width": 40, "height": 24})
    tiny.train.segments()[2]["area"] += 1
    return tiny.check()


def test_text_lists_errors_first_and_shortens_long_lists(broken):
    text = format_report(broken)
    assert text.index("error: wrong-area (1)") < text.index("image-without-annotation (7)")
    assert "image 105 (105.jpg)" in text and "106.jpg" not in text
    assert "... and 2 more; --json FILE lists all" in text
    assert re.search(r"^warning +image-without-annotation +7$", text, re.M)
    assert "tiny_train: 3 images, 15 segments" in text
    assert re.search(r"^ *90 +car +thing +9 +3 +\d+\.\d\d % +6$", text, re.M)
    assert text.endswith("1 error, 7 warnings, 0 notes")


def test_text_without_any_json(tiny):
    tiny.train.content = tiny.val.content = None
    text = format_report(tiny.check())
    assert "error: json-missing (2)" in text
    assert text.endswith("2 errors, 0 warnings, 0 notes")


def test_json_has_every_finding(broken):
    content = json.loads(json.dumps(broken.as_dict()))
    assert content["counts"] == {"error": 1, "warning": 7, "note": 0}
    assert content["codes"] == {"wrong-area": 1, "image-without-annotation": 7}
    assert len(content["findings"]) == 8
    keys = {"severity", "code", "dataset", "file", "id", "message", "fix"}
    assert all(set(finding) == keys for finding in content["findings"])
    assert [d["name"] for d in content["datasets"]] == ["tiny_train", "tiny_val"]


def test_page_is_self_contained(broken):
    page = format_page(broken)
    assert page.startswith("<!DOCTYPE html>")
    assert 'name="viewport"' in page and "prefers-color-scheme: dark" in page
    assert "http" not in page.replace("https://cocodataset.org", "")  # the page loads nothing
    assert "wrong-area" in page and "107.jpg" in page
    assert 'style="width: 100.0%"' in page


def test_page_escapes_text_of_the_data_set(tiny):
    for split in tiny.train, tiny.val:
        split.categories[0]["name"] = EVIL
    tiny.train.images[0]["file_name"] = f"../{EVIL}"
    tiny.train.segments()[0]["category_id"] = 1000
    page = format_page(tiny.check())
    assert "<img" not in page
    assert page.count(str(escape(EVIL))) >= 3


def test_page_of_many_findings_stays_small(tiny):
    for id_ in range(1000, 3000):
        tiny.train.images.append({"id": id_, "file_name": f"{id_}.jpg", "width": 1, "height": 1})
    page = format_page(tiny.check())
    assert page.count("<li>") == 101
    assert "... and 1900 more" in page
