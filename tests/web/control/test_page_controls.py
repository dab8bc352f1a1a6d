"""The page's controls in a real browser: what is sent, what is saved, and what is said of a refusal."""

from __future__ import annotations

import msgspec
import pytest

from tests.web.page_stage import Stage, paused_by_user, paused_for_hades, running, signal
from tests.web.page_visit import Visit, expect, wait_until
from tray_valet.core.errors import Cooldown, UnknownModel


def test_pause_and_resume_are_sent_once(stage: Stage, visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("button", name="Pause").click()
    stage.show(paused_by_user())
    page.get_by_role("button", name="Resume").click()
    stage.show(running())
    expect(page.locator("h1")).to_have_text("Running")
    assert [name for name, _ in stage.valet.calls if name in ("pause", "resume")] == ["pause", "resume"]


def test_resuming_during_a_game_asks_first(stage: Stage, visit: Visit) -> None:
    stage.show(paused_for_hades())
    page = visit.open(title="Paused for Hades")
    page.get_by_role("button", name="Keep running…").click()
    question = page.get_by_role("dialog")
    expect(question).to_contain_text("Keep models running during Hades?")
    expect(question).to_contain_text("They take 17.3\u00a0GB of VRAM; the game may stutter.")
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_be_hidden()
    assert stage.valet.called("resume") == []
    page.get_by_role("button", name="Keep running…").click()
    question.get_by_role("button", name="Keep running").click()
    expect(question).to_be_hidden()
    wait_until(page, lambda: stage.valet.called("resume"))


def test_a_refused_command_says_why(stage: Stage, visit: Visit) -> None:
    stage.valet.fails["pause"] = Cooldown("Pause was asked for a moment ago.", retry_after_s=2)
    page = visit.open()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("alert")).to_contain_text("Pause was asked for a moment ago.")
    expect(page.get_by_role("button", name="Pause")).to_be_enabled()


def test_unload_names_the_model_and_its_provider(stage: Stage, visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("button", name="Unload llama3.1:8b").click()
    wait_until(page, lambda: stage.valet.called("unload"))
    assert stage.valet.called("unload") == [{"model": "llama3.1:8b", "provider": "ollama"}]
    stage.valet.fails["unload"] = UnknownModel("There is no model “llama3.1:8b”.")
    page.get_by_role("button", name="Unload llama3.1:8b").click()
    expect(page.locator("#models .err")).to_contain_text("There is no model")


def test_a_limit_is_saved_and_only_then_called_saved(stage: Stage, visit: Visit) -> None:
    page = visit.open("#limits")
    ring = page.get_by_role("slider", name="RAM: pause at", exact=True)
    expect(ring).to_have_value("85")
    ring.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#saved-load")).to_have_text("Saved")
    assert stage.valet.settings.thresholds.ram_pause_pct == 86.0
    expect(page.locator(".slide").first).to_contain_text("pause at 86%")
    stage.set({"thresholds": {"ram_pause_pct": 90}})
    expect(ring).to_have_value("90")  # changed elsewhere


def test_a_limit_that_makes_no_sense_stays_unsaved_and_says_what_applies(stage: Stage, visit: Visit) -> None:
    page = visit.open("#limits")
    ring = page.get_by_role("slider", name="VRAM: pause at")
    for _ in range(12):
        ring.press("ArrowLeft")
    error = page.get_by_role("group", name="VRAM").get_by_role("alert")
    expect(error).to_contain_text("The pause limit must be above the resume limit, 75%. Still 76%.")
    expect(ring).to_have_attribute("aria-invalid", "true")
    assert stage.valet.settings.thresholds.gpu_vram_pause_pct == 76.0
    expect(page.get_by_text("Saved")).to_have_count(0)
    for _ in range(5):
        ring.press("ArrowRight")
    expect(error).to_have_count(0)
    wait_until(page, lambda: stage.valet.settings.thresholds.gpu_vram_pause_pct == 78.0)


@pytest.mark.parametrize(
    ("typed", "stored", "error"),
    [
        ("20", 20, None),
        ("20 s", 20, None),
        ("2 min", 120, None),
        ("1,5", 1.5, None),
        ("0", 10, "Still 10\u00a0s."),
        ("", 10, "is not a time"),
        ("soon", 10, "“soon” is not a time"),
        ("-5", 10, "is not a time"),
        ("999999999", 10, "Still 10\u00a0s."),
    ],
)
def test_a_time_is_read_as_people_write_it(
    stage: Stage, visit: Visit, typed: str, stored: float, error: str | None
) -> None:
    page = visit.open("#limits")
    field = page.get_by_label("Look at RAM, VRAM and CPU every")
    expect(field).to_have_value("10\u00a0s")
    field.fill(typed)
    field.press("Enter")
    if error is None:
        expect(page.locator("#saved-times")).to_have_text("Saved")
    else:
        line = page.locator("section", has_text="Times").get_by_role("alert")
        expect(line).to_contain_text(error)
        expect(line).to_contain_text("Still 10\u00a0s.")
        assert field.get_attribute("aria-errormessage") == line.get_attribute("id")
        assert field.input_value() == typed, "what was typed stays, to be put right"
    assert stage.valet.settings.thresholds.check_interval_seconds == stored


def test_saved_does_not_stand_beside_an_error(stage: Stage, visit: Visit) -> None:
    page = visit.open("#limits")
    saved = page.locator("#saved-times")
    for typed, word in (("20", "Saved"), ("soon", "")):
        field = page.get_by_label("Look at RAM, VRAM and CPU every")
        field.fill(typed)
        field.press("Enter")
        expect(saved).to_have_text(word)


def test_the_switch_is_saved(stage: Stage, visit: Visit) -> None:
    page = visit.open("#limits")
    page.get_by_role("switch", name="Resume when RAM is free again").uncheck()
    expect(page.get_by_text("Saved")).to_have_count(1)
    assert stage.valet.settings.thresholds.auto_resume_on_ram_pressure is False


def test_the_limits_tell_what_pauses_now_and_what_does_not(stage: Stage, visit: Visit) -> None:
    page = visit.open("#limits")
    verdict = page.locator("#limits-verdict")
    expect(verdict).to_contain_text("With these limits nothing pauses now.")
    expect(verdict).to_contain_text("The nearest is VRAM: it is at 79.6% and pauses at 85%.")
    full = signal("vram", 91.0, 88.0, 85.0, 75.0)
    stage.show(running(signals=(full,)))
    expect(verdict).to_contain_text("VRAM is 91% full, but other programs want no more than before")
    stage.show(running(signals=(msgspec.structs.replace(full, counts=True),)))
    expect(verdict).to_contain_text("With these limits VRAM pauses now.")
