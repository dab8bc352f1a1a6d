"""The page with a whole valet behind it: a game, a pause, the limits in the file, and a kill."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import quiet_port
from tests.web.page_visit import Visit, expect, wait_until
from tests.whole.valet_process import ValetProcess, engine_pids

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")


@pytest.fixture
def valet(tmp_path: Path, tiny_model: Path) -> Iterator[ValetProcess]:
    models = {"tiny": {"model_path": str(tiny_model), "flags": ["--ctx-size", "2048"]}}
    # The valet that is killed here comes back at its address.
    control = {"port": quiet_port()}
    settings = {"control": control, "providers": {"local": {"kind": "llama-server", "models": models}}}
    with ValetProcess(tmp_path / "home", settings) as process:
        yield process
    assert engine_pids(tmp_path / "home") == []


@pytest.fixture
def visited(browser: Any, valet: ValetProcess) -> Iterator[Visit]:
    context = browser.new_context()
    yield Visit(context.new_page(), str(valet.control.base_url).rstrip("/"))
    context.close()


def test_pause_resume_and_unload_through_the_page(valet: ValetProcess, visited: Visit) -> None:
    valet.post("/load", {"model": "tiny"})
    page = visited.open()
    expect(page.locator("#models tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("h1")).to_have_text("Paused by you")
    expect(page.locator("#aside tbody tr")).to_contain_text("tiny")
    assert valet.loaded() == {}
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("h1")).to_have_text("Running")
    assert set(valet.loaded()) == {"tiny"}
    page.get_by_role("button", name="Unload tiny").click()
    expect(page.locator("h1")).to_have_text("No model loaded")
    expect(page.locator("#activity li").first).to_contain_text("tiny")
    assert visited.said == []


def test_a_game_is_named_with_what_it_takes(valet: ValetProcess, visited: Visit) -> None:
    page = visited.open(title="No model loaded")
    game = valet.play()
    expect(page.locator("h1")).to_have_text("Paused for Hades")
    expect(page.get_by_role("button", name="Keep running…")).to_be_visible()
    memory = valet.get("/memory")["ram"]["parts"]
    assert [part["name"] for part in memory if part["kind"] in ("game", "free")][-1] == "Free"
    page.get_by_role("button", name="Keep running…").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep running").click()
    expect(page.locator("h1")).not_to_have_text("Paused for Hades")
    valet.stop(game)


def test_limits_are_stored_in_the_file_and_refusals_are_not(valet: ValetProcess, visited: Visit) -> None:
    page = visited.open("#limits", title="No model loaded")
    page.get_by_role("slider", name="RAM: pause at", exact=True).press("ArrowRight")
    expect(page.locator("#saved-load")).to_have_text("Saved")
    assert valet.get("/config")["ram_pause_pct"] == 86.0
    file = valet.home / "config.yaml"
    assert "86" in file.read_text()
    before = file.read_bytes()
    field = page.get_by_label("Look at RAM, VRAM and CPU every")
    field.fill("0")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Still 1\u00a0s.")
    assert file.read_bytes() == before
    assert valet.get("/config")["check_interval_seconds"] == 1


def test_a_killed_valet_is_missed_and_the_next_one_is_found(valet: ValetProcess, visited: Visit) -> None:
    page = visited.open(title="No model loaded")
    port = int(visited.url.rsplit(":", 1)[1])
    valet.kill()
    expect(page.locator("h1")).to_have_text("Tray Valet is not running")
    valet.write_settings({"providers": {}, "control": {"port": port}})
    valet.start()
    wait_until(page, lambda: page.locator("h1").inner_text() == "No provider found")
