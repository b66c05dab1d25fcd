"""A real browser without a window, for pages that are to be looked at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Root, as in containers, has no sandbox; and nothing but the page should talk to anybody
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


@dataclass
class Visit:
    """
    A page that is open, and what happened while it was loaded.

    :param page: of playwright
    :param said: what the page wrote to the console, and errors on it
    :param requested: addresses that it asked for
    """

    page: Any
    said: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """
    A browser of playwright; tests are skipped where there is none, but not where tests run by themselves.

    :raises AssertionError: if there is none and the environment variable CI is set
    """
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "there is no chromium: apt-get install chromium"
        pytest.skip("there is no chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        assert not os.environ.get("CI"), "there is no playwright: pip install playwright"
        pytest.skip("there is no playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Any, path: Path, width: int) -> Iterator[Visit]:
    """
    :param browser: of :func:`chromium`
    :param path: of a file
    :param width: of the window, in pixels
    :return: the page, completely loaded
    """
    page = browser.new_page(viewport={"width": width, "height": 900})
    seen = Visit(page)
    page.on("console", lambda message: seen.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.said.append(str(error)))
    page.on("request", lambda request: seen.requested.append(request.url))
    try:
        page.goto(path.resolve().as_uri(), wait_until="load")
        yield seen
    finally:
        page.close()
