"""A report in a real browser: folded on a phone, unfolded on a desktop and without scripts."""

import pytest

from eseg_d2.apps.report import build_report


@pytest.fixture
def open_report(browser, make_run, tmp_path):
    """Return a function that opens a run's report in a window of the given width."""
    run = make_run(tmp_path / "run")
    (tmp_path / "report.html").write_text(build_report([run], images=3), encoding="utf-8")
    contexts = []

    def open_window(width: int, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 844}, **options))
        tab = contexts[-1].new_page()
        tab.goto((tmp_path / "report.html").as_uri())
        return tab

    yield open_window
    for context in contexts:
        context.close()


def size(tab) -> tuple[int, int]:
    root = tab.locator("html")
    return tuple(root.evaluate("root => [root.scrollWidth, root.scrollHeight]"))


def test_phone_shows_the_metrics_and_unfolds_the_rest(open_report):
    tab = open_report(390)
    width, height = size(tab)
    assert width <= 390 and height < 2 * 844
    images = tab.locator("#images .panels img")
    assert tab.locator("#metrics .tile").first.is_visible() and not images.first.is_visible()
    tab.click("nav a[href='#images']")
    images.first.click()
    assert tab.locator("#viewer img").is_visible()
    tab.click("[data-close]")
    folded = tab.locator(".part:not([open]) > summary")
    while folded.count():
        folded.first.click()
    width, height = size(tab)
    assert width <= 390 and height < 8000


@pytest.mark.parametrize("options", [{"java_script_enabled": False}, {}])
def test_everything_is_shown_on_a_desktop_and_without_scripts(open_report, options):
    tab = open_report(1400, **options)
    for image in tab.locator(".panels img").all():
        assert image.is_visible()
    assert tab.locator(".part:not([open])").count() == 0
