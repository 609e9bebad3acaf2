"""A real browser, for tests of pages."""

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    """A Chromium of Playwright; tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    # without a sandbox root cannot start it; it opens our own pages alone
    options = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()
