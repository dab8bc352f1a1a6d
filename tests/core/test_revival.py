"""When a crashed runner is started again, and when nothing is started any more."""

from __future__ import annotations

import pytest

from tray_valet.core.config import Settings
from tray_valet.core.config_providers import LlamaServerModelSettings, LlamaServerSettings, OllamaSettings
from tray_valet.core.models import ModelRef
from tray_valet.core.revival import (
    History,
    Patience,
    after_crash,
    after_failed_start,
    after_start,
    definition_of,
    without_restart,
)

PATIENCE = Patience()


def crashed(times_s: list[float]) -> History:
    """Crashes at these times, each after a start that went well."""
    history = History()
    for now_s in times_s:
        history = after_crash(after_start(history, now_s, PATIENCE), now_s, PATIENCE)
    return history


@pytest.mark.parametrize(("crashes", "wait_s"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16)])
def test_each_crash_is_followed_by_a_longer_wait(crashes: int, wait_s: float) -> None:
    history = crashed([100.0] * crashes)
    assert history.next_start_s == 100 + wait_s
    assert not history.is_given_up


def test_the_wait_has_an_upper_end() -> None:
    patient = Patience(restarts=50)
    history = History()
    for _ in range(40):
        history = after_crash(history, 0.0, patient)
    assert history.next_start_s == 60


def test_the_sixth_crash_in_ten_minutes_is_one_too_many() -> None:
    history = crashed([0, 100, 200, 300, 400, 599])
    assert history.is_given_up
    assert history.next_start_s is None
    assert len(history.crashes) == 6


def test_crashes_long_ago_do_not_count() -> None:
    history = crashed([0, 100, 200, 300, 400, 601])
    assert not history.is_given_up
    assert history.next_start_s == 601 + 16


def test_a_restart_that_fails_counts_as_a_crash() -> None:
    history = after_failed_start(crashed([0.0]), 1.0, PATIENCE)
    assert history.next_start_s == 1 + 2
    assert len(history.crashes) == 2


@pytest.mark.parametrize(
    ("failures", "refused_for_s"),
    [(1, None), (2, None), (3, 30), (4, 60), (5, 120), (6, 240), (7, 300), (20, 300)],
)
def test_failed_starts_are_refused_for_longer_and_longer(failures: int, refused_for_s: float | None) -> None:
    history = History()
    for _ in range(failures):
        history = after_failed_start(history, 50.0, PATIENCE)
    assert history.refused_until_s == (None if refused_for_s is None else 50 + refused_for_s)
    assert history.next_start_s is None, "what fails is not started by itself"


def test_a_start_that_goes_well_forgets_failures_but_not_crashes() -> None:
    failed = after_failed_start(History(), 0.0, PATIENCE)
    assert after_start(failed, 1.0, PATIENCE).is_clean
    back = after_start(crashed([0.0]), 1.0, PATIENCE)
    assert back.crashes == (0.0,)
    assert back.next_start_s is None
    assert after_start(back, 700.0, PATIENCE).is_clean


def test_what_is_unloaded_on_purpose_is_not_started_by_itself() -> None:
    assert without_restart(crashed([0.0])).next_start_s is None


def test_only_what_a_model_is_started_with_is_its_definition() -> None:
    def settings(**changes: object) -> Settings:
        models = {
            "one": LlamaServerModelSettings(model_path="one.gguf"),
            "two": LlamaServerModelSettings(model_path="two.gguf"),
        }
        local = LlamaServerSettings(**{"models": models} | changes)  # type: ignore[arg-type]
        return Settings(providers={"local": local, "ollama": OllamaSettings()})

    one, two = ModelRef("local", "one"), ModelRef("local", "two")
    before = settings()
    after = settings(
        models={
            "one": LlamaServerModelSettings(model_path="one.gguf", flags=("-ngl", "0")),
            "two": LlamaServerModelSettings(model_path="two.gguf"),
        }
    )
    assert definition_of(before, one) != definition_of(after, one)
    assert definition_of(before, two) == definition_of(after, two)
    assert definition_of(before, two) != definition_of(settings(llama_server_path="/x"), two)
    assert definition_of(before, ModelRef("gone", "x")) is None
    assert definition_of(Settings(), one) is None
