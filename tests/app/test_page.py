"""What a visitor gets, asked for as the page's script does."""

import base64
import io
import json
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image


def ids_of(view, message):
    words = np.frombuffer(zlib.decompress(base64.b64decode(view["ids"])), "<u2")
    return words.reshape(message["height"], message["width"])


@pytest.fixture(scope="module")
def shown(page, picture):
    path = page.upload(picture)
    message = page.ask("predict", {"upload": path, "name": "my street.png", "serial": 5})
    return {**message, "path": path}


def test_views_of_an_upload(shown, page):
    assert (shown["kind"], shown["serial"], shown["name"]) == ("result", 5, "my street.png")
    assert (shown["height"], shown["width"]) == (64, 128)
    assert set(shown["views"]) == {"panoptic", "semantic", "instances"}
    for view in shown["views"].values():
        ids = ids_of(view, shown)
        assert ids.max() <= len(view["segments"])
        shares = {row["class_id"]: row["share"] for row in view["legend"]}
        classes = np.array([-1, *(s["class_id"] for s in view["segments"])])[ids]
        for class_id, share in shares.items():
            assert share == pytest.approx((classes == class_id).mean())
        assert sorted(shares.values(), reverse=True) == list(shares.values())
    semantic = shown["views"]["semantic"]
    assert sum(row["share"] for row in semantic["legend"]) == pytest.approx(1)
    assert (
        page.ask("predict", {"upload": shown["path"], "name": "a"})["kind"] == "error"
    )  # it is gone


def test_an_example_is_the_same_as_its_upload(page, shown, scene):
    from pathlib import Path

    names = sorted(p.name for p in Path(scene).parent.glob("*.png"))
    again = page.ask("predict", {"example": names.index(Path(scene).name)})
    assert again["views"] == shown["views"] and again["token"] != shown["token"]
    content = json.loads(page.config()["components"][0]["props"]["value"])
    assert len(content["examples"]) == len(names)


def test_context_of_a_pixel(page, shown):
    request = {"token": shown["token"], "row": 40, "column": 100}
    levels = page.ask("context", request)["levels"]
    assert [level["text"].partition(":")[0] for level in levels] == [
        f"Stride {s}" for s in (8, 16, 32, 64, 128)
    ]
    other = page.ask("context", {**request, "row": 4, "column": 3})["levels"]
    assert levels[0]["picture"] != other[0]["picture"]
    assert page.ask("context", request)["levels"] == levels  # from the weights that were kept


def test_downloads(page, shown):
    offered = [what for what, _ in shown["downloads"]]
    assert offered == ["overlay", "labels", "json", "zip"]
    files = {}
    for what in offered:
        answer = page.ask("download", {"token": shown["token"], "what": what})
        files[answer["name"]] = base64.b64decode(answer["content"])
    names = ["my_street_overlay.png", "my_street_labels.png", "my_street_segments.json"]
    assert list(files) == [*names, "my_street.zip"]
    with zipfile.ZipFile(io.BytesIO(files["my_street.zip"])) as archive:
        assert sorted(archive.namelist()) == sorted(names)
        # the colours of an overlay vary a little, by chance
        assert all(archive.read(name) == files[name] for name in names[1:])
    assert Image.open(io.BytesIO(files[names[0]])).format == "PNG"
    labels = Image.open(io.BytesIO(files[names[1]]))
    assert labels.mode == "P" and labels.size == (128, 64)
    segments = json.loads(files[names[2]])["segments"]
    assert {s["class_id"] for s in segments} == set(np.unique(labels).tolist()) - {255}


@pytest.mark.parametrize(
    ("kind", "views"), [("semantic", {"semantic"}), ("instance", {"instances"})]
)
def test_other_models_say_what_they_lack(open_page, request, kind, views, picture):
    page = open_page(request.getfixturevalue(f"{kind}_model"))
    shown = page.ask("predict", {"upload": page.upload(picture), "name": "a.png"})
    assert set(shown["views"]) == views
    assert shown["notes"]["panoptic"] == "This model gives no panoptic result."
    assert "no RSP head" in shown["notes"]["context"] and not shown["has_context"]
    answer = page.ask("context", {"token": shown["token"], "row": 1, "column": 1})
    assert answer["kind"] == "error" and "no RSP head" in answer["text"]
    zipped = page.ask("download", {"token": shown["token"], "what": "zip"})
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(zipped["content"]))) as archive:
        assert len(archive.namelist()) == 3


def test_only_the_last_results_are_kept(page, picture):
    first = page.ask("predict", {"example": 0})
    for _ in range(8):
        page.ask("predict", {"example": 0})
    answer = page.ask("download", {"token": first["token"], "what": "json"})
    assert answer["kind"] == "error" and "no longer kept" in answer["text"]
