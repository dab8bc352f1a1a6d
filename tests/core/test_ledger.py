"""What is remembered of a game, and how little."""

from __future__ import annotations

import msgspec
import pytest

from tray_valet.core import ledger as rules
from tray_valet.core.ledger import (
    KEPT_DURATIONS,
    KEPT_GAMES,
    MAX_BYTES,
    Ledger,
    Slowness,
    SlowPart,
    SteppedAside,
)
from tray_valet.core.ledger_words import summary

GB = 2**30
NBSP = "\u00a0"


def step(took_s: float, freed_bytes: int = 0, slow: Slowness | None = None, at: float = 1.0) -> SteppedAside:
    return SteppedAside(at=at, took_s=took_s, freed_bytes=freed_bytes, slow=slow)


def hades(*steps: SteppedAside) -> Ledger:
    ledger = rules.opened(Ledger(), "steam:1", "Hades", 1.0)
    for each in steps:
        ledger = rules.stepped_aside(ledger, "steam:1", each)
    return ledger


def test_median_worst_last_and_what_was_freed() -> None:
    killed = Slowness(part=SlowPart.RUNNER, took_s=5.0)
    record = hades(step(0.6, 17 * GB), step(6.2, 4 * GB, killed), step(0.4, GB)).games["steam:1"]
    assert (record.times, record.median_s) == (3, 0.6)
    assert record.worst is not None
    assert (record.worst.took_s, record.worst.slow) == (6.2, killed)
    assert record.last is not None
    assert (record.last.took_s, record.last.freed_bytes) == (0.4, GB)
    assert (record.freed_bytes, record.most_freed_bytes) == (22 * GB, 17 * GB)
    assert (record.slow, record.slow_times) == ({SlowPart.RUNNER: 1}, 1)


def test_the_worst_is_remembered_beyond_the_durations_that_are_kept() -> None:
    record = hades(step(60.0), *(step(0.5) for _ in range(200))).games["steam:1"]
    assert (record.times, len(record.took_s), record.median_s) == (201, KEPT_DURATIONS, 0.5)
    assert record.worst is not None
    assert record.worst.took_s == 60.0


def test_a_game_that_nothing_stepped_aside_for_has_no_seconds() -> None:
    record = hades().games["steam:1"]
    assert (record.times, record.median_s, record.worst, record.median_restore_s) == (0, None, None, None)


def test_the_oldest_games_go_when_there_are_too_many_and_playing_one_makes_it_new() -> None:
    ledger = Ledger()
    for n in range(KEPT_GAMES):
        ledger = rules.opened(ledger, f"steam:{n}", f"Game {n}", float(n))
    ledger = rules.opened(ledger, "steam:0", "Game 0", 1000.0)
    ledger = rules.opened(ledger, "steam:new", "New", 1001.0)
    assert len(ledger.games) == KEPT_GAMES
    assert "steam:0" in ledger.games
    assert "steam:1" not in ledger.games
    assert list(ledger.games)[-2:] == ["steam:0", "steam:new"]


def test_a_full_ledger_stays_below_its_limit_and_is_read_back_whole() -> None:
    ledger = Ledger()
    slow = Slowness(part=SlowPart.MEMORY, took_s=123.456)
    for n in range(KEPT_GAMES):
        key = rules.key_of("steam", "", f"{n}" + "🎮" * 300)
        ledger = rules.opened(ledger, key, "🎮" * 300, 1_700_000_000.0)
        for _ in range(KEPT_DURATIONS):
            ledger = rules.stepped_aside(ledger, key, step(123.456, 2**40, slow, 1_700_000_000.123))
            ledger = rules.restored(ledger, key, 123.456)
    raw = rules.encoded(ledger)
    assert len(raw) <= MAX_BYTES
    read = rules.decoded(raw)
    assert len(read.games) > KEPT_GAMES / 4
    assert list(read.games)[-1] == list(ledger.games)[-1], "the oldest are left out, not the newest"
    usual = hades(step(0.6))
    assert rules.decoded(rules.encoded(usual)) == usual


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"games": []}',
        b'{"games": {"a": {"key": "b", "name": "A", "last_at": 1}}}',
        b'{"games": {"a": {"key": "a", "name": "A", "last_at": 1, "times": -1}}}',
        b'{"games": {"a": {"key": "a", "name": "A", "last_at": 1, "took_s": ["x"]}}}',
        b'{"games": {"a": {"key": "a", "name": "A", "last_at": 1, "took_s": ['
        + b",".join([b"1"] * 51)
        + b"]}}}",
    ],
)
def test_what_is_no_ledger_is_not_read(raw: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        rules.decoded(raw)


def test_a_later_versions_fields_are_no_damage() -> None:
    raw = b'{"games": {"a": {"key": "a", "name": "A", "last_at": 1, "mood": "good"}}, "version": 7}'
    assert set(rules.decoded(raw).games) == {"a"}


def test_a_game_is_meant_by_its_key_or_its_name_however_written() -> None:
    ledger = rules.opened(hades(), "epic:Hades", "Hades", 2.0)
    assert rules.named(ledger, "steam:1") == ("steam:1",)
    assert rules.named(ledger, "hADES") == ("steam:1", "epic:Hades")
    assert rules.named(ledger, "Had") == ()


def test_forgetting_leaves_the_others() -> None:
    ledger = rules.opened(hades(), "epic:Doom", "Doom", 2.0)
    assert set(rules.without(ledger, ("steam:1",)).games) == {"epic:Doom"}


def test_a_key_is_never_a_folder() -> None:
    assert rules.key_of("steam", "1145360", "Hades") == "steam:1145360"
    assert rules.key_of("", "", "Hades") == ":Hades"


def test_what_a_late_provider_gave_back_belongs_to_the_same_stepping_aside() -> None:
    record = rules.freed_more(hades(step(0.6, 4 * GB)), "steam:1", 2 * GB).games["steam:1"]
    assert (record.times, record.freed_bytes, record.most_freed_bytes) == (1, 6 * GB, 6 * GB)
    assert record.last == record.worst


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((), "No model was loaded when it ran."),
        ((step(0.6, 17 * GB),), "Your models stepped aside once, in 0.6 s. 17.0 GB were freed at most."),
        (
            (step(0.6), step(0.4), step(6.2, GB, Slowness(part=SlowPart.RUNNER, took_s=5.0))),
            "Your models stepped aside 3 times, in 0.6 s mostly and 6.2 s at worst. "
            "1.0 GB were freed at most. It was slow once; the slowest took 6.2 s, 5 s of it: "
            "a model's process did not let go and was ended.",
        ),
    ],
)
def test_a_record_in_sentences(steps: tuple[SteppedAside, ...], said: str) -> None:
    assert summary(hades(*steps).games["steam:1"]).replace(NBSP, " ") == said


def test_restores_failures_and_reloads_are_said() -> None:
    ledger = hades(step(0.6))
    ledger = rules.restored(ledger, "steam:1", 4.1)
    ledger = rules.restored(ledger, "steam:1", 4.1)
    ledger = rules.restored(ledger, "steam:1", 20.0)
    ledger = rules.reloaded(rules.restore_failed(ledger, "steam:1"), "steam:1")
    said = summary(ledger.games["steam:1"]).replace(NBSP, " ")
    assert "They came back in 4.1 s, 20 s at worst. 1 model could not be brought back." in said
    assert said.endswith("Programs loaded models past Tray Valet once while it ran.")
