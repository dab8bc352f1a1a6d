"""The page at /docs, in a real browser: it draws the description, finds, and breaks no policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.web.page_visit import expect
from tray_valet.web.control.openapi.operations import OPERATIONS

if TYPE_CHECKING:
    from tests.web.page_visit import Visit


def test_every_operation_is_there_and_can_be_found(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.url}/docs")
    operations = page.locator("#operations details")
    expect(operations).to_have_count(len(OPERATIONS))
    expect(page.locator("h1")).to_contain_text("control API")
    page.fill("#find", "/models/pull")
    expect(page.locator("#operations details:visible")).to_have_count(1)
    page.locator("#operations details:visible summary").click()
    expect(page.locator("#operations details:visible")).to_contain_text("507")
    expect(page.locator("#operations details:visible pre").first).to_contain_text("llama3.2:3b")
    assert visit.said == []


def test_a_link_to_a_form_opens_it(visit: Visit) -> None:
    visit.page.goto(f"{visit.url}/docs#schema-Download")
    expect(visit.page.locator("#schema-Download")).to_have_attribute("open", "")
    expect(visit.page.locator("#schema-Download")).to_contain_text("completed_bytes")
    assert visit.said == []
