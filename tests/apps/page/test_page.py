"""What a visitor gets, requested as the page's script does."""

import base64
import io
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def ids_of(view, answer):
    words = np.frombuffer(zlib.decompress(base64.b64decode(view["ids"])), "<u2")
    return words.reshape(answer["height"], answer["width"])


@pytest.fixture
def shown(page, picture):
    return page.upload(picture, "my street.png")


def test_legends_of_an_upload_match_its_views(shown):
    assert (shown["height"], shown["width"]) == (64, 128)
    assert list(shown["views"]) == ["panoptic", "semantic", "instances"]  # the first is shown
    assert shown["facts"].startswith("my street.png: 128 x 64 pixels; predicted in ")
    for view in shown["views"].values():
        ids = ids_of(view, shown)
        assert ids.max() < len(view["segments"])
        shares = {row["class_id"]: row["share"] for row in view["legend"]}
        classes = np.array([s["class_id"] for s in view["segments"]])[ids]
        for class_id, share in shares.items():
            assert share == pytest.approx((classes == class_id).mean())
        assert sum(shares.values()) == pytest.approx(1)
        assert sorted(shares.values(), reverse=True) == list(shares.values())


def test_example_gives_the_same_views_as_its_upload(page, shown, scene):
    names = sorted(p.name for p in Path(scene).parent.glob("*.png"))
    again = page.ask("example", example=names.index(Path(scene).name))
    assert again["views"] == shown["views"] and again["token"] != shown["token"]
    assert len(page.client.get("/start").json()["examples"]) == len(names)


def test_large_images_are_resized_and_the_page_says_so(page, monkeypatch):
    from eseg_d2.apps.page import service

    monkeypatch.setattr(service, "LONGEST", 100)
    file = io.BytesIO()
    Image.new("RGB", (400, 20), "grey").save(file, "PNG")
    answer = page.upload(file.getvalue(), "wide.png")
    assert (answer["width"], answer["height"]) == (100, 5)
    assert "wide.png: 400 x 20 pixels, resized to 100 x 5" in answer["facts"]


def scores(view) -> list[float]:
    texts = [segment["text"] for segment in view["segments"]]
    return [float(text.split("score ")[1].split(",")[0]) for text in texts if "score" in text]


def test_threshold_of_the_page_acts_like_that_of_the_predictor(page, picture, panoptic_model):
    from eseg_d2 import Predictor
    from eseg_d2.apps.page.segment_maps import make_views

    config, overrides, weights = panoptic_model
    shown = page.upload(picture, threshold=0)
    found = sorted(scores(shown["views"]["instances"]))
    assert len(found) > 4
    threshold = (found[-1] + found[0]) / 2
    predictor = Predictor(config, weights, overrides=overrides, confidence_threshold=threshold)
    stored = io.BytesIO(picture)
    image = np.asarray(Image.open(stored).convert("RGB"))[:, :, ::-1]
    expected = make_views(predictor(image.copy()), predictor.classes)
    views = page.ask("views", token=shown["token"], threshold=threshold)["views"]
    assert 0 < len(scores(views["instances"])) < len(found)
    assert views == json.loads(json.dumps(expected))
    assert views == page.upload(picture, threshold=threshold)["views"]
    nothing = page.ask("views", token=shown["token"], threshold=1)["views"]
    assert scores(nothing["panoptic"]) == scores(nothing["instances"]) == []
    assert [row["name"] for row in nothing["instances"]["legend"]] == ["no object"]
    assert len(nothing["instances"]["segments"]) == 1


def test_downloads_follow_the_threshold(page, shown):
    for threshold, expected in (0, True), (1, False):
        _, content = page.download(shown["token"], "json", threshold)
        assert any(s["isthing"] for s in json.loads(content)["segments"]) == expected


def test_context_of_a_pixel_at_every_stride(page, shown):
    request = {"token": shown["token"], "row": 40, "column": 100}
    answer = page.ask("context", **request)
    levels = answer["levels"]
    assert answer["pixel"] == [40, 100]
    strides = [level["text"].partition(":")[0] for level in levels]
    assert strides == [f"Stride {s}" for s in (8, 16, 32)]
    for level in levels:
        assert sum(share for _, _, share in level["cells"]) == pytest.approx(1, abs=1e-4)
        top, bottom, left, right = level["window"]
        assert 0 <= top < bottom <= 64 and 0 <= left < right <= 128
    assert levels[0]["cell"] == [8, 8]
    assert any((row, column) == (5, 12) for row, column, _ in levels[0]["cells"])
    other = page.ask("context", **{**request, "row": 4, "column": 3})["levels"]
    assert levels[0]["cells"] != other[0]["cells"]
    again = page.ask("context", **request)  # from the weights kept since the first request
    assert again["levels"] == levels


def test_downloads_have_the_expected_names_and_contents(page, shown):
    offered = [what for what, _ in shown["downloads"]]
    assert offered == ["overlay", "labels", "json", "zip"]
    files = dict(page.download(shown["token"], what) for what in offered)
    names = ["my_street_overlay.png", "my_street_labels.png", "my_street_segments.json"]
    assert list(files) == [*names, "my_street.zip"]
    with zipfile.ZipFile(io.BytesIO(files["my_street.zip"])) as archive:
        assert sorted(archive.namelist()) == sorted(names)
        # the colours of an overlay vary at random
        assert all(archive.read(name) == files[name] for name in names[1:])
    assert Image.open(io.BytesIO(files[names[0]])).format == "PNG"
    labels = Image.open(io.BytesIO(files[names[1]]))
    assert labels.mode == "P" and labels.size == (128, 64)
    segments = json.loads(files[names[2]])["segments"]
    assert {s["class_id"] for s in segments} == set(np.unique(labels).tolist()) - {255}


def test_download_keeps_a_unicode_name(page, picture):
    token = page.upload(picture, "Straße 図.png")["token"]
    assert page.download(token, "labels")[0] == "Straße_図_labels.png"


@pytest.mark.parametrize(
    ("kind", "views", "threshold"),
    [("semantic", {"semantic"}, None), ("instance", {"instances"}, 0.5)],
)
def test_page_says_what_other_models_lack(open_page, request, kind, views, threshold, picture):
    page = open_page(request.getfixturevalue(f"{kind}_model"))
    start = page.client.get("/start").json()
    assert start["threshold"] == threshold and not start["has_context"]
    assert start["about"].startswith("a model (") and start["about"].endswith("weights model.pth")
    shown = page.upload(picture, "a.png", threshold=0)
    assert set(shown["views"]) == views
    assert shown["notes"]["panoptic"] == "This model gives no panoptic result."
    assert "no RSP head" in shown["notes"]["context"]
    answer = page.ask("context", token=shown["token"], row=1, column=1)
    assert "no RSP head" in answer["error"]
    _, content = page.download(shown["token"], "zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert len(archive.namelist()) == 3


def test_only_the_latest_results_are_kept(page):
    first = page.ask("example", example=0)
    for _ in range(8):
        page.ask("example", example=0)
    answer = page.ask("download", token=first["token"], what="json")
    assert "no longer kept" in answer["error"]


@pytest.mark.parametrize(
    "wrong", [{"max_upload": 0}, {"max_pixels": -1}, {"max_aspect": 0}, {"waiting": 0}]
)
def test_limit_below_1_is_refused(wrong):
    from eseg_d2.apps.page.limits import Limits

    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*expected 1 or more"):
        Limits(**wrong)
