"""Pauses, freed memory and crashes are counted once each."""

from __future__ import annotations

from tray_valet.core import events as ev
from tray_valet.core.holds import Hold, HoldKind, UserCause
from tray_valet.core.watchdog import State
from tray_valet.services.tally import TallyBook


class Clock:
    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


def hold(kind: HoldKind) -> Hold:
    return Hold(id=kind.value, kind=kind, owner="valet", cause=UserCause(reason=""), since=0.0)


def change(after: State) -> ev.StateChanged:
    return ev.StateChanged(before=State.RUNNING, after=after, reason="")


def test_a_pause_is_counted_for_the_hold_that_began_it_and_only_once() -> None:
    clock = Clock()
    book = TallyBook(clock)
    book.note(ev.HoldPlaced(hold=hold(HoldKind.GAME)))
    book.note(ev.HoldPlaced(hold=hold(HoldKind.RAM)))
    for state in (State.PAUSING, State.PAUSED, State.PAUSING, State.PAUSED):  # evicted again in between
        book.note(change(state))
    clock.now_s += 30
    assert book.seen().pauses == {"game": 1}
    assert book.seen().paused_s == 30
    book.note(change(State.RESUMING))
    clock.now_s += 5
    book.note(change(State.RUNNING))
    assert book.seen().paused_s == 30
    book.note(ev.HoldEnded(hold=hold(HoldKind.GAME)))
    book.note(change(State.PAUSED))
    assert book.seen().pauses == {"game": 1, "ram": 1}


def test_a_pause_is_not_counted_for_a_game_that_the_models_stay_beside() -> None:
    book = TallyBook(Clock())
    book.note(ev.HoldPlaced(hold=hold(HoldKind.GAME)))
    for state in (State.PAUSING, State.PAUSED, State.RESUMING, State.RUNNING):  # the user chose Keep running
        book.note(change(state))
    book.note(ev.HoldPlaced(hold=hold(HoldKind.USER)))
    book.note(change(State.PAUSED))
    assert book.seen().pauses == {"game": 1, "user": 1}


def test_a_pause_that_never_came_to_be_is_none() -> None:
    book = TallyBook(Clock())
    book.note(change(State.PAUSING))
    book.note(change(State.RUNNING))
    assert (book.seen().pauses, book.seen().paused_s) == ({}, 0.0)


def test_freed_memory_and_its_time_add_up() -> None:
    book = TallyBook(Clock())
    for took_s in (0.3, 4.0):
        book.note(ev.ModelsSetAside(models=("a",), freed_bytes=2**30, took_s=took_s, cause="Hades"))
    assert book.seen().freed_bytes == 2**31
    assert (sum(book.seen().set_aside.counts), book.seen().set_aside.sum_s) == (2, 4.3)


def test_crashes_are_counted_by_model_and_bounded() -> None:
    book = TallyBook(Clock())
    crash = ev.RunnerCrashed(provider="p", model="a", message="x")
    book.note(crash)
    book.note(ev.RunnerGivenUp(provider="p", model="a", message="x", times=6, within_s=600))
    assert book.seen().runner_crashes == {"p/a": 2}
    for number in range(1000):
        book.note(ev.RunnerCrashed(provider="p", model=f"m{number}", message="x"))
    assert len(book.seen().runner_crashes) <= 200
