"""The page in a real browser, on a phone and on a desktop."""

import io
import itertools
import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

SIZES = {"phone": (390, 844), "desktop": (1400, 900)}

PHONE = pytest.param(("phone", "dark"), marks=pytest.mark.slow)


@pytest.fixture(params=[PHONE, ("desktop", "light")], ids="-".join)
def tab(request, browser, page):
    """Load the page; fail afterwards if a script failed or another server was contacted."""
    size, scheme = request.param
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        has_touch=size == "phone",
        accept_downloads=True,
    )
    opened = context.new_page()
    requested, errors = [], []
    opened.on("request", lambda r: requested.append(r.url))
    opened.on("pageerror", lambda e: errors.append(str(e)))
    # Chromium logs an answer with status 400 as an error; the page shows it
    refused = "Failed to load resource: the server responded with a status of 400"
    opened.on(
        "console",
        lambda m: (
            errors.append(m.text)
            if m.type in ("error", "warning") and not m.text.startswith(refused)
            else None
        ),
    )
    opened.goto(page.address)
    opened.wait_for_selector("#about:not(:empty)")
    opened.is_phone = size == "phone"
    yield opened
    context.close()
    assert not errors
    hosts = {urlsplit(u).netloc for u in requested if urlsplit(u).scheme not in ("data", "blob")}
    assert hosts == {urlsplit(page.address).netloc}


def set_threshold(tab, value: str) -> None:
    with tab.expect_response("**/views"):
        tab.fill("#threshold", value)
        tab.dispatch_event("#threshold", "change")
    tab.wait_for_selector("#status[hidden]", state="attached")


@pytest.fixture
def shown(tab, scene):
    """Upload a scene and wait until its result is shown."""
    tab.set_input_files("#file", scene)
    tab.wait_for_selector("#result:not([hidden])", timeout=60_000)
    tab.wait_for_selector("#status[hidden]", state="attached", timeout=60_000)
    set_threshold(tab, "0.05")  # the scores of an untrained model are low
    return tab


def at(tab, x: float, y: float) -> tuple[float, float]:
    """Convert a position in the picture, from 0 to 1, to screen coordinates."""
    tab.locator("#stage").scroll_into_view_if_needed()
    box = tab.locator("#stage").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def pixels(tab) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(tab.locator("#stage").screenshot())), int)


def fits(tab) -> bool:
    return tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_page_shows_the_examples_and_fits_the_window(tab, scene):
    assert tab.locator("#examples img").count() == len(list(Path(scene).parent.glob("*.png")))
    assert fits(tab)
    assert np.asarray(Image.open(io.BytesIO(tab.screenshot()))).std() > 5


def test_upload_shows_views_whose_opacity_can_be_changed(shown, scene, tmp_path):
    assert shown.locator("[data-view=panoptic]").get_attribute("aria-pressed") == "true"
    facts = shown.locator("#facts").inner_text()
    assert facts.startswith(f"{Path(scene).name}: 128 x 64 pixels; predicted in ")
    assert "weights model.pth" in shown.locator("#about").inner_text()
    for view in "panoptic", "semantic", "instances":
        shown.click(f"[data-view={view}]")
        assert shown.locator("#legend li").count() > 0
        assert "%" in shown.locator(".share").first.inner_text()
        shown.fill("#opacity", "100")
        opaque = pixels(shown)
        shown.fill("#opacity", "0")
        assert np.abs(opaque - pixels(shown)).mean() > 0.5
    assert fits(shown)
    shown.screenshot(path=tmp_path / "page.png", full_page=True)
    assert Image.open(tmp_path / "page.png").width == shown.viewport_size["width"]


def test_tip_shows_class_and_id_of_a_pixel(shown):
    texts = {}
    for view in "semantic", "instances":
        shown.click(f"[data-view={view}]")
        texts[view] = set()
        for x, y in itertools.product((0.05, 0.25, 0.5, 0.7, 0.95), (0.1, 0.3, 0.5, 0.7, 0.9)):
            position = at(shown, x, y)
            shown.touchscreen.tap(*position) if shown.is_phone else shown.mouse.move(*position)
            texts[view].add(shown.locator("#tip").inner_text())
            box = shown.locator("#tip").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= shown.viewport_size["width"]
    share = r"[\d.]+ % of the pixels"
    assert all(re.fullmatch(rf"[\w ]+, class \d+, {share}", text) for text in texts["semantic"])
    objects = texts["instances"] - {"no object"}
    assert len(objects) > 1
    for text in objects:
        assert re.fullmatch(rf"[\w ]+, class \d+, id \d+, score 0\.\d+, {share}", text)
    shown.mouse.click(*at(shown, 64.5 / 128, 51.5 / 64))
    assert "Row 51, column 64: " in shown.locator("#pixel").inner_text()


def test_click_on_the_legend_shows_one_class_alone(shown):
    shown.click("[data-view=semantic]")
    shown.fill("#opacity", "100")
    before = pixels(shown)
    shown.locator("#legend button").last.click()
    assert np.abs(before - pixels(shown)).mean() > 1
    shown.locator("#legend button").last.click()
    assert np.array_equal(before, pixels(shown))


def test_threshold_hides_objects(shown):
    shown.click("[data-view=instances]")
    before = pixels(shown)
    assert "\u00d7" in shown.locator("#legend").inner_text()
    set_threshold(shown, "1")
    assert shown.locator("#threshold-text").inner_text() == "1.00"
    assert shown.locator("#legend").inner_text().split("\n")[0] == "no object"
    assert np.abs(before - pixels(shown)).mean() > 0.5


def test_void_is_in_the_legend_if_present(shown):
    void = shown.locator("#legend li", has_text="void")
    expected = shown.evaluate("ids.panoptic.some((index) => index === 0)")
    assert void.count() == int(expected)
    if expected:
        colour = void.locator(".swatch").evaluate("node => getComputedStyle(node).backgroundColor")
        assert colour == "rgb(0, 0, 0)"


def test_click_shows_the_context_of_a_pixel(shown):
    shown.click("[data-view=context]")
    assert shown.locator("#scale").is_hidden()
    shown.mouse.click(*at(shown, 0.5, 0.8))
    shown.wait_for_selector("#levels figure", timeout=60_000)
    pictures = shown.locator("#levels canvas")
    assert pictures.count() == 3
    drawn = np.asarray(Image.open(io.BytesIO(pictures.first.screenshot())).convert("RGB"), int)
    assert (drawn.max(2) - drawn.min(2)).max() > 50 and (drawn.max(2) == drawn.min(2)).any()
    assert "Stride 8" in shown.locator("figcaption").first.inner_text()
    assert shown.locator("#scale").is_visible() and fits(shown)


def test_label_map_can_be_downloaded(shown):
    with shown.expect_download(timeout=60_000) as download:
        shown.get_by_role("button", name="Label map").click()
    labels = Image.open(download.value.path())
    assert labels.mode == "P" and labels.size == (128, 64)
    assert download.value.suggested_filename.endswith("_labels.png")


def test_click_on_an_example_shows_its_result(tab):
    tab.locator("#examples button").nth(1).click()
    tab.wait_for_selector("#result:not([hidden])", timeout=60_000)


def test_failed_upload_shows_its_error(tab, page):
    name = "<img src=x onerror=alert(1)>.png"
    file = {"name": name, "mimeType": "image/png", "buffer": b"text"}
    tab.set_input_files("#file", [file])
    tab.wait_for_selector("#status.bad", timeout=60_000)
    assert tab.locator("#status").inner_text().startswith(f"cannot read the image {name}: ")
    large = {**file, "buffer": bytes(page.limits.max_upload + 1)}
    tab.set_input_files("#file", [large])
    assert "the limit is 0.2 MB" in tab.locator("#status").inner_text()
    assert tab.locator("#result").is_hidden()
