"""The page in a real browser: what it says in each state, and what it does when it is alone."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.web.page_stage import MODELS, Stage, ollama, paused_by_user, paused_for_hades, running, sample
from tests.web.page_visit import Visit, expect, wait_until
from tray_valet.core import events as ev
from tray_valet.core.models import LoadedModel
from tray_valet.core.watchdog import State


@pytest.mark.parametrize(
    ("picture", "look", "buttons"),
    [
        (running(), "run", ["Pause"]),
        (running(providers=(ollama(),), title="No model loaded"), "idle", ["Pause"]),
        (running(state=State.PROVIDER_DOWN, title="Ollama does not answer"), "warn", ["Pause"]),
        (paused_for_hades(state=State.PAUSING, title="Making room for Hades"), "move", ["Keep running…"]),
        (paused_for_hades(), "hold", ["Keep running…"]),
        (paused_by_user(), "hold", ["Resume"]),
        (
            paused_for_hades(holds=(), resumes_in_s=18.0, title="Hades ended. Back in 18 s"),
            "move",
            ["Stay paused", "Resume now"],
        ),
        (running(state=State.RESUMING, title="Bringing your models back"), "move", ["Stay paused"]),
    ],
    ids=lambda value: value.title if hasattr(value, "title") and not isinstance(value, str) else None,
)
def test_the_header_says_what_is_so_and_offers_what_fits(
    stage: Stage, visit: Visit, picture: Any, look: str, buttons: list[str]
) -> None:
    stage.show(picture)
    page = visit.open(title=picture.title)
    expect(page.locator("#state-line")).to_have_text(picture.line)
    expect(page.locator("#state")).to_have_class(f"state {look}")
    assert page.locator("#state-actions button").all_inner_texts() == buttons
    expect(page.locator("#announcer")).to_have_text(f"{picture.title}. {picture.line}")
    assert visit.said == []


def test_a_countdown_is_read_out_once(stage: Stage, visit: Visit) -> None:
    def waiting(left: int) -> Any:
        return paused_for_hades(holds=(), resumes_in_s=left, title=f"Hades ended. Back in {left} s", line="x")

    stage.show(waiting(18))
    page = visit.open(title="Hades ended. Back in 18 s")
    expect(page.locator("#state-countdown")).to_be_visible()
    stage.show(waiting(9))
    expect(page.locator("h1")).to_have_text("Hades ended. Back in 9 s")
    expect(page.locator("#announcer")).to_have_text("Hades ended. Back in 18 s. x")
    assert page.locator("#state-countdown").get_attribute("value") == "50"


def test_the_bars_show_who_has_the_memory(stage: Stage, visit: Visit) -> None:
    page = visit.open()
    vram, ram = page.locator("#memory .mem").all()
    assert vram.locator(".num").inner_text() == "19.1 of 24.0\u00a0GB"
    assert "qwen2.5:14b 10.6\u00a0GB" in (vram.locator(".bar").get_attribute("aria-label") or "")
    widths = [float(r.get_attribute("width")[:-1]) for r in vram.locator(".bar rect").all()]
    assert widths == pytest.approx([44.2, 25.4, 2.5, 7.5], abs=0.1)
    assert "Free\n34.3\u00a0GB" in ram.inner_text()
    stage.show(paused_for_hades())
    expect(page.locator("#memory .mem").first.locator(".key")).to_contain_text("Hades")
    hatched = page.locator('#memory .bar rect[fill="url(#hatch)"]')
    assert float(hatched.get_attribute("width")[:-1]) == pytest.approx(29.2, abs=0.1)


def test_without_a_gpu_the_page_says_why(stage: Stage, visit: Visit) -> None:
    stage.show(running(sample=sample(), gpu_missing_because="No NVIDIA driver is loaded."))
    page = visit.open()
    expect(page.locator("#memory")).to_contain_text("No NVIDIA driver is loaded.")
    assert page.locator("#memory .bar").count() == 1


def test_what_was_set_aside_is_listed_while_paused(stage: Stage, visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#aside-group")).to_be_hidden()
    stage.show(paused_for_hades())
    expect(page.locator("#aside tbody tr")).to_have_count(3)
    expect(page.locator("#models-group")).to_be_hidden()
    expect(page.locator("#aside-total")).to_contain_text("17.3\u00a0GB")


def test_activity_grows_as_it_happens_and_shows_the_rest_on_request(stage: Stage, visit: Visit) -> None:
    page = visit.open()
    stage.show(running(), *(ev.ModelLoaded(model=f"m{i}", took_s=2.4, size_bytes=2**30) for i in range(12)))
    expect(page.locator("#activity li")).to_have_count(8)
    expect(page.locator("#activity li").first).to_contain_text("m11 loaded in 2.4 s")
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#activity li")).to_have_count(12)


def test_activity_is_asked_for_again_when_a_look_was_refused(stage: Stage, visit: Visit) -> None:
    refusals = 0
    is_well = False

    def answer(route: Any) -> None:
        nonlocal refusals
        if is_well:
            route.continue_()
            return
        refusals += 1
        route.fulfill(status=504, json={"error": {"message": "That took too long."}})

    stage.show(running(), ev.ModelLoaded(model="qwen", took_s=2.4, size_bytes=2**30))
    page = visit.page
    page.route("**/memory", answer)
    page.goto(f"{visit.url}/ui/")
    expect(page.get_by_role("alert")).to_contain_text("That took too long.")
    wait_until(page, lambda: refusals >= 4)
    is_well = True
    expect(page.locator("#activity")).to_contain_text("qwen loaded in 2.4 s")


def test_a_mistake_in_the_settings_file_stays_in_sight(stage: Stage, visit: Visit) -> None:
    stage.show(running(settings_problem="Line 14, thresholds.ram_pause_pct: “eighty” is not a number."))
    page = visit.open()
    expect(page.get_by_role("alert")).to_contain_text("Line 14, thresholds.ram_pause_pct")


def test_a_name_from_outside_is_never_taken_for_markup(stage: Stage, visit: Visit) -> None:
    name = '<img src=x onerror="alert(1)">'
    tricky = LoadedModel(name=name, size_bytes=2**31, vram_bytes=2**31, context_length=None, ttl_left_s=None)
    stage.show(running(providers=(ollama(tricky),)), ev.ModelLoaded(model=name, took_s=1, size_bytes=2**31))
    page = visit.open()
    expect(page.locator("#models td").first).to_contain_text(name)
    expect(page.locator("#activity")).to_contain_text(name)
    assert page.locator("img").count() == 0
    assert visit.said == []


# -- alone, and locked out -----------------------------------------------------------------------------


def test_when_the_valet_is_gone_the_page_says_since_when_and_recovers(stage: Stage, visit: Visit) -> None:
    page = visit.open()
    port = int(stage.url.rsplit(":", 1)[1])
    stage.stop()
    expect(page.locator("h1")).to_have_text("Tray Valet is not running")
    expect(page.locator("#state-line")).to_have_text(
        re.compile(r"^This page shows how things were at \d\d:\d\d\. Trying again in \d\u00a0s\.$")
    )
    expect(page.locator("#models button").first).to_be_disabled()
    expect(page.get_by_role("alert")).to_contain_text("Nothing can be changed until it is back.")
    expect(page.locator("#models tbody tr")).to_have_count(3)
    assert "grayscale" in page.locator(".bar").first.evaluate("bar => getComputedStyle(bar).filter")
    stage.start(port)
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("h1")).to_have_text("Running")
    expect(page.locator("#models button").first).to_be_enabled()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_limits_cannot_be_changed_while_the_valet_is_gone(stage: Stage, visit: Visit) -> None:
    page = visit.open("#limits")
    stage.stop()
    expect(page.locator("h1")).to_have_text("Tray Valet is not running")
    for control in page.locator("main input").all():
        expect(control).to_be_disabled()
    stage.start(int(stage.url.rsplit(":", 1)[1]))
    expect(page.locator("h1")).to_have_text("Running")  # by itself, a few seconds later
    expect(page.locator("main input").first).to_be_enabled()


def test_with_a_token_asked_for_a_code_opens_the_page_and_leaves_no_trace(stage: Stage, visit: Visit) -> None:
    stage.set({"control": {"local_access": "token"}})
    page = visit.open(f"#code={stage.code()}")
    assert page.url == f"{stage.url}/ui/"
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    page.get_by_role("button", name="Pause").click()
    wait_until(page, lambda: stage.valet.called("pause"))
    assert visit.said == []


@pytest.mark.parametrize("fragment", ["", "#code=guessed", "#limits"])
def test_with_a_token_asked_for_the_page_shows_nothing_without_a_code(
    stage: Stage, visit: Visit, fragment: str
) -> None:
    stage.set({"control": {"local_access": "token"}})
    page = visit.open(fragment, title="This page has no key")
    assert MODELS[0].name not in page.content()
    expect(page.locator("main section").first).to_be_hidden()
