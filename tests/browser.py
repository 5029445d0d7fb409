"""Headless Chromium for tests of pages: one that a test opens must stay silent and ask nothing of the network."""

import os
import shutil
from contextlib import contextmanager

import pytest

try:
    from playwright.sync_api import sync_playwright
except ModuleNotFoundError:
    sync_playwright = None

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def chromium():
    """A browser; without one, or without playwright, the test is skipped with the reason, and fails on CI."""
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    lacking = [
        *([] if executable else [f"a browser ({', '.join(_NAMES)}) on the path"]),
        *([] if sync_playwright else ["the package playwright"]),
    ]
    if lacking:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {' and '.join(lacking)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def silent_page(browser, path, **options):
    """The page in a file, opened; afterwards it must have logged nothing, shown no dialog and requested nothing else."""
    with browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce", **options) as context:
        page, heard = context.new_page(), []
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: heard.append(f"request: {request.url[:200]}"))
        page.goto(path.as_uri())
        assert heard.pop(0) == f"request: {path.as_uri()}"
        yield page
        assert heard == []
