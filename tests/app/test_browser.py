"""The page in a real browser: load, upload, click, screenshot; phone and desktop."""

import io
import itertools
import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = {"phone": (390, 844), "desktop": (1400, 900)}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    # without a sandbox root cannot start it; it opens our own page alone
    options = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(params=[("phone", "dark"), ("desktop", "light")], ids="-".join)
def tab(request, browser, page):
    """The page, loaded; fails if a script failed or another server was asked."""
    size, scheme = request.param
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        has_touch=size == "phone",
        accept_downloads=True,
    )
    opened = context.new_page()
    asked, errors = [], []
    opened.on("request", lambda r: asked.append(r.url))
    opened.on("pageerror", lambda e: errors.append(str(e)))
    opened.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    opened.goto(page.address)
    opened.wait_for_selector(".eseg-about:not(:empty)")
    opened.is_phone = size == "phone"
    yield opened
    context.close()
    assert not errors
    hosts = {urlsplit(u).netloc for u in asked if urlsplit(u).scheme not in ("data", "blob")}
    assert hosts == {urlsplit(page.address).netloc}


@pytest.fixture
def shown(tab, scene):
    """With the result of an upload."""
    tab.set_input_files(".eseg-file", scene)
    tab.wait_for_selector(".eseg-result:not([hidden])", timeout=60_000)
    return tab


def at(tab, x: float, y: float) -> tuple[float, float]:
    """A place in the picture, 0 .. 1, in pixels of the screen."""
    tab.locator(".eseg-stage").scroll_into_view_if_needed()
    box = tab.locator(".eseg-stage").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def pixels(tab) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(tab.locator(".eseg-stage").screenshot())), int)


def fits(tab) -> bool:
    return tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_load(tab, scene):
    assert tab.locator(".eseg-examples img").count() == len(list(Path(scene).parent.glob("*.png")))
    assert fits(tab)
    assert np.asarray(Image.open(io.BytesIO(tab.screenshot()))).std() > 5


def test_upload_views_and_opacity(shown, tmp_path):
    assert shown.locator(".eseg-status").is_hidden()
    for view in "panoptic", "semantic", "instances":
        shown.click(f"[data-view={view}]")
        assert shown.locator(".eseg-legend li").count() > 0
        assert "%" in shown.locator(".eseg-share").first.inner_text()
        shown.fill(".eseg-slider input", "100")
        opaque = pixels(shown)
        shown.fill(".eseg-slider input", "0")
        assert np.abs(opaque - pixels(shown)).mean() > 0.5
    assert fits(shown)
    shown.screenshot(path=tmp_path / "page.png", full_page=True)
    assert Image.open(tmp_path / "page.png").width == shown.viewport_size["width"]


def test_class_and_id_of_a_pixel(shown):
    texts = {}
    for view in "semantic", "instances":
        shown.click(f"[data-view={view}]")
        texts[view] = set()
        for x, y in itertools.product((0.05, 0.25, 0.5, 0.7, 0.95), (0.1, 0.3, 0.5, 0.7, 0.9)):
            place = at(shown, x, y)
            shown.touchscreen.tap(*place) if shown.is_phone else shown.mouse.move(*place)
            texts[view].add(shown.locator(".eseg-tip").inner_text())
            box = shown.locator(".eseg-tip").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= shown.viewport_size["width"]
    share = r"[\d.]+ % of the pixels"
    assert all(re.fullmatch(rf"[\w ]+, class \d+, {share}", text) for text in texts["semantic"])
    objects = texts["instances"] - {"no class"}
    assert len(objects) > 1
    for text in objects:
        assert re.fullmatch(rf"[\w ]+, class \d+, id \d+, score 0\.\d+, {share}", text)
    shown.mouse.click(*at(shown, 64.5 / 128, 51.5 / 64))
    assert "Row 51, column 64: " in shown.locator(".eseg-pixel").inner_text()


def test_a_class_alone(shown):
    shown.click("[data-view=semantic]")
    shown.fill(".eseg-slider input", "100")
    before = pixels(shown)
    shown.locator(".eseg-legend button").last.click()
    assert np.abs(before - pixels(shown)).mean() > 1
    shown.locator(".eseg-legend button").last.click()
    assert np.array_equal(before, pixels(shown))


def test_click_for_context(shown):
    shown.click("[data-view=context]")
    shown.mouse.click(*at(shown, 0.5, 0.8))
    shown.wait_for_selector(".eseg-levels figure", timeout=60_000)
    pictures = shown.locator(".eseg-levels img")
    assert pictures.count() == 5
    assert pictures.first.evaluate("image => image.naturalWidth") > 500
    assert "Stride 8" in shown.locator("figcaption").first.inner_text()
    assert fits(shown)


def test_download(shown):
    with shown.expect_download(timeout=60_000) as download:
        shown.get_by_role("button", name="Label map").click()
    labels = Image.open(download.value.path())
    assert labels.mode == "P" and labels.size == (128, 64)
    assert download.value.suggested_filename.endswith("_labels.png")


def test_an_example(tab):
    tab.locator(".eseg-examples button").nth(1).click()
    tab.wait_for_selector(".eseg-result:not([hidden])", timeout=60_000)


def test_what_cannot_be_shown(tab, page):
    name = "<img src=x onerror=alert(1)>.png"
    file = {"name": name, "mimeType": "image/png", "buffer": b"text"}
    tab.set_input_files(".eseg-file", [file])
    tab.wait_for_selector(".eseg-bad", timeout=60_000)
    assert tab.locator(".eseg-status").inner_text().startswith(f"{name} is no image")
    large = {**file, "buffer": bytes(page.limits.max_upload + 1)}
    tab.set_input_files(".eseg-file", [large])
    assert "the limit is 0.2 MB" in tab.locator(".eseg-status").inner_text()
    assert tab.locator(".eseg-result").is_hidden()
