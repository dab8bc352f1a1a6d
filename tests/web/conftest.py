"""Fixtures for tests with a real browser. Nothing of them is imported where no test asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.web.page_stage import Stage, staged

if TYPE_CHECKING:
    from tests.web.page_visit import Visit


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, once for all tests of a module."""
    from tests.web.page_visit import CHROMIUM, playwright

    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (apt: chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    """The real server around a picture that the test sets."""
    with staged() as stage:
        yield stage


@pytest.fixture
def visit(browser: Any, stage: Stage, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A visit to the stage. Parametrise it indirectly with a browser context's options."""
    from tests.web.page_visit import Visit

    context = browser.new_context(**getattr(request, "param", {}))
    yield Visit(context.new_page(), stage.url)
    context.close()
