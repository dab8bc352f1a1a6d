"""Visits to the page with a real browser (the fixtures are in conftest.py)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is a test dependency (dev extra)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 45_000
expect = playwright.expect
expect.set_options(timeout=PATIENCE_MS)


class Visit:
    """One page, and what its console said."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.said: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))

    def open(self, fragment: str = "", title: str = "Running") -> Any:
        self.page.goto("about:blank")  # else a changed fragment alone would load nothing
        self.page.goto(f"{self.url}/ui/{fragment}")
        expect(self.page.locator("h1")).to_have_text(title)
        return self.page


def wait_until(page: Any, is_so: Callable[[], object]) -> None:
    """Wait for the valet to have seen something; the browser goes on meanwhile."""
    for _ in range(PATIENCE_MS // 50):
        if is_so():
            return
        page.wait_for_timeout(50)
    raise AssertionError("not seen in time")
