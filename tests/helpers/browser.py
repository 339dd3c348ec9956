"""Opens pages in a headless Chromium and notes what goes wrong there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESK = (390, 844), (1440, 900)  # pixels


def require_browser() -> str:
    """Returns the path of a Chromium; skips the test where there is none, or fails where one is insisted on."""
    if found := next(filter(None, map(which, NAMES)), None):
        return found
    reason = f"no browser on PATH: looked for {', '.join(NAMES)}"
    pytest.fail(reason) if os.environ.get("PRUNE2DRIVE_NEEDS_BROWSER") == "1" else pytest.skip(reason)


@contextmanager
def started() -> Iterator[Any]:
    """Starts a browser inside this context."""
    path = require_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def on_all_screens(test: Any) -> Any:
    """Runs a test that takes `size` and `scheme` on a phone in the dark and at a desk in the light.

    The size decides where things are and the scheme their colours, so neither is tried with each of the other.
    """
    return pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESK, "light")])(test)


def check_readable(page: Any) -> None:
    """Asserts that a page fits its window and that axe-core finds nothing wrong on it."""
    assert overflow(page) == 0
    assert axe_violations(page) == []


@contextmanager
def opened(
    browser: Any, file: Path, size: tuple[int, int] = DESK, scheme: str = "light", hash: str = "", **more: Any
) -> Iterator[Any]:
    """Opens a page file; when the context ends, nothing may have gone wrong on the page, and nothing been requested.

    Args:
        browser: a started browser.
        file: the page.
        size: width and height of the window.
        scheme: light or dark.
        hash: what follows the file in the address, from # on.
        **more: further options of the browser's context, such as `has_touch`.
    """
    context = browser.new_context(
        viewport=dict(zip(("width", "height"), size, strict=True)), color_scheme=scheme, **more
    )
    context.set_default_timeout(5000)
    page, faults = context.new_page(), []
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith("data:") else faults.append(request.url))
    page.goto(file.as_uri() + hash)
    assert faults.pop(0).startswith(file.as_uri())
    yield page
    context.close()
    assert not faults, faults


def overflow(page: Any) -> int:
    """Returns by how many pixels a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def axe_violations(page: Any) -> list[str]:
    """Returns what axe-core finds wrong on a page: each rule, with the first element that breaks it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}" for each in found]
