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

# Of elements, the contrast of each with what is behind it: Chromium's own colours, painted on a pixel each, so that every colour
# space is read as the eye gets it.
CONTRAST = """elements => elements.map((element) => {
    const pen = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const luminance = (...colours) => {
        for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
        const [r, g, b] = Array.from(pen.getImageData(0, 0, 1, 1).data, (v) => v / 255).map(
            (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = [];
    for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const [low, high] = [luminance(...behind), luminance(...behind, getComputedStyle(element).color)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
})"""


@contextmanager
def chromium_page():
    """An empty page in a browser; without one, or without playwright, the test is skipped with the reason, and fails on CI."""
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    lacking = [
        *([] if executable else [f"a browser ({', '.join(_NAMES)}) on the path"]),
        *([] if sync_playwright else ["the package playwright"]),
    ]
    if lacking:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {' and '.join(lacking)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        page.set_default_timeout(120_000)  # milliseconds; a busy machine is no failure
        yield page
        browser.close()


@contextmanager
def visit(page, path):
    """Opens a file; until the end it must log nothing, show no dialog and request nothing else."""
    heard = []
    listeners = {
        "console": lambda message: heard.append(f"console: {message.text}"),
        "pageerror": lambda error: heard.append(f"error: {error}"),
        "dialog": lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()),
        "request": lambda request: heard.append(f"request: {request.url[:200]}"),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    try:
        page.goto(path.as_uri())
        yield
        assert heard == [f"request: {path.as_uri()}"], heard
    finally:
        for event, listener in listeners.items():
            page.remove_listener(event, listener)
