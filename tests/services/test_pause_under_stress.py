"""Pauses when several things go wrong at once: a provider that hangs, holds that come and go, a full disk."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.house import GB, FakeProvider, House
from tray_valet.core import events as ev
from tray_valet.core.commands import Wish
from tray_valet.core.config import EvictionSettings
from tray_valet.core.errors import Paused
from tray_valet.core.holds import Hold, HoldKind, PressureCause, UserCause
from tray_valet.core.models import ConditionType, LoadRequest, ModelRef
from tray_valet.core.processes import ProcessIdentity
from tray_valet.core.watchdog import State
from tray_valet.services.preload import preload

QUICK = EvictionSettings(drain_seconds=0.2, kill_after_seconds=0.3, confirm_seconds=0.5)


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def house(tmp_path: Path, provider: FakeProvider) -> House:
    return House(tmp_path, provider, QUICK)


def ram_pressure(house: House) -> Hold:
    cause = PressureCause(signal=HoldKind.RAM, value_pct=90.0, limit_pct=85.0, resume_pct=60.0)
    hold = Hold(id="pressure:ram", kind=HoldKind.RAM, owner="valet", cause=cause, since=0.0)
    house.holds.place(hold)
    return hold


async def until(is_so: Callable[[], bool], within_s: float = 30.0) -> None:
    end_s = asyncio.get_running_loop().time() + within_s
    while not is_so():
        assert asyncio.get_running_loop().time() < end_s
        await asyncio.sleep(0.01)


# -- providers that hang -------------------------------------------------------------------------------


@pytest.fixture
def hung(house: House) -> FakeProvider:
    """A second provider, with a model, that can be made to hang."""
    other = FakeProvider("hung", ("x",), ProcessIdentity(777, 1))
    other.put("x", context_length=8192)
    house.providers.append(other)
    return other


async def test_a_provider_that_hangs_delays_the_eviction_of_no_other(
    house: House, provider: FakeProvider, hung: FakeProvider
) -> None:
    provider.put("a")
    async with house.running():
        hung.thawed.clear()
        house.game()
        # A look at the hung one takes 6 s; the other is out long before that is over.
        await until(lambda: provider.loaded == {}, within_s=5.0)
        assert house.watchdog.state is State.PAUSING, "not paused: the hung one still holds its model"


async def test_a_provider_that_hangs_loses_its_runner_and_gets_its_model_back_when_it_answers_again(
    house: House, provider: FakeProvider, hung: FakeProvider
) -> None:
    async with house.running():
        hung.thawed.clear()
        hold = house.game()
        await house.reaches(State.PAUSED, within_s=30)
        assert hung.memory_bytes == 0
        assert ("kill", "x") in hung.calls
        assert [(e.model, e.context_length) for e in house.journal.missing] == [("x", 8192)]
        hung.thawed.set()
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert hung.loaded["x"].context_length == 8192


async def test_a_model_found_when_a_hung_provider_answers_in_mid_pause_was_there_before_and_comes_back(
    house: House, provider: FakeProvider, hung: FakeProvider
) -> None:
    """Nobody loaded it past the valet: it is set aside, noted, and nobody is blamed."""
    async with house.running():
        slot = house.fleet.slots["hung"]
        hung.is_away = True
        await until(lambda: slot.is_down)
        assert slot.loaded == (), "nothing answers and no process is there"
        hold = house.game()
        await house.reaches(State.PAUSED)
        hung.is_away = False
        await until(lambda: hung.loaded == {})
        await house.reaches(State.PAUSED)
        assert house.seen(ev.ModelReloadedDuringPause) == []
        assert [e.ref for e in house.journal.missing] == [ModelRef("hung", "x")]
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert set(hung.loaded) == {"x"}


async def test_requests_for_a_provider_that_answers_do_not_wait_for_one_that_hangs(
    house: House, provider: FakeProvider, hung: FakeProvider
) -> None:
    async with house.running():
        hung.thawed.clear()
        for slot in house.fleet.slots.values():
            slot.installed_at_s = -1000.0  # the lists are old
        # The hanging one's list takes 6 s to be given up.
        async with asyncio.timeout(5), house.dispatcher.admit(Wish(model="a")) as lease:
            assert lease.ref == ModelRef("fake", "a")


async def test_a_reload_is_seen_at_one_provider_while_another_hangs(
    house: House, provider: FakeProvider, hung: FakeProvider
) -> None:
    provider.put("a")
    async with house.running():
        hung.thawed.clear()
        before = house.fleet.slots["fake"].look_seen
        await until(lambda: house.fleet.slots["fake"].look_seen > before + 1, within_s=5.5)


async def test_an_old_look_that_answers_late_does_not_undo_a_newer_one(
    house: House, provider: FakeProvider
) -> None:
    async with house.running():
        slot = house.fleet.slots["fake"]
        provider.put("a")
        observe, release = provider.observe, asyncio.Event()
        seen = await observe()

        async def late() -> object:
            await release.wait()
            return seen

        provider.observe = late  # type: ignore[assignment,method-assign]
        old = asyncio.create_task(house.fleet.refresh([slot]))
        await asyncio.sleep(0)
        provider.observe = observe  # type: ignore[method-assign]
        provider.loaded.clear()
        await house.fleet.refresh([slot])
        release.set()
        await old
        assert slot.loaded == ()


# -- holds that come and go ----------------------------------------------------------------------------


async def test_ram_pressure_during_a_game_sets_cpu_models_aside_too_and_they_come_back(
    house: House, provider: FakeProvider
) -> None:
    provider.cpu_only = frozenset({"b"})
    provider.put("a")
    provider.put("b", context_length=2048)
    async with house.running():
        game = house.game()
        await house.reaches(State.PAUSED)
        assert set(provider.loaded) == {"b"}, "it goes on serving during the game"
        pressure = ram_pressure(house)
        await until(lambda: provider.loaded == {})
        await house.reaches(State.PAUSED)
        assert house.seen(ev.ModelReloadedDuringPause) == [], "nobody loaded it past the valet"
        assert {e.model for e in house.journal.missing} == {"a", "b"}
        report = house.evictor.last_pause
        assert report is not None
        assert (set(report.models), report.freed_bytes) == ({"a", "b"}, 8 * GB)
        house.holds.end(pressure.id)
        house.holds.end(game.id)
        await house.reaches(State.RUNNING)
        assert {n: m.context_length for n, m in provider.loaded.items()} == {"a": 4096, "b": 2048}


async def test_the_reason_given_is_one_that_still_holds(house: House) -> None:
    async with house.running():
        game = house.game()
        await house.reaches(State.PAUSED)
        house.holds.place(Hold(id="user", kind=HoldKind.USER, owner="user", cause=UserCause(), since=0.0))
        house.holds.end(game.id)
        await house.reaches(State.PAUSED)
        assert house.watchdog.reason == "manual pause"


async def test_a_pause_that_took_two_passes_is_reported_whole(house: House, provider: FakeProvider) -> None:
    """What the first pass got out and what only the second did, with the time of both."""
    provider.put("a")
    provider.put("b")
    let_go = provider._let_go

    def stubborn(model: str) -> None:
        if model == "a":
            let_go(model)

    async with house.running():
        provider._let_go = stubborn  # type: ignore[method-assign]
        house.game()
        await until(lambda: "a" not in provider.loaded and "still holds b" in house.evictor.still_held)
        provider._let_go = let_go  # type: ignore[method-assign]
        provider.loaded.clear()  # it goes between two passes
        provider.memory_bytes = 0
        await house.reaches(State.PAUSED)
        report = house.evictor.last_pause
        assert report is not None
        assert set(report.models) == {"a", "b"}
        assert report.freed_bytes == 8 * GB
        assert report.is_confirmed_by_memory is True
        assert len(house.seen(ev.ModelsSetAside)) == 1


async def test_force_does_not_wait_for_an_eviction_that_is_under_way(
    tmp_path: Path, provider: FakeProvider
) -> None:
    slow = EvictionSettings(drain_seconds=60, kill_after_seconds=60, confirm_seconds=1)
    house = House(tmp_path, provider, slow)
    provider.put("a")
    async with house.running(), house.dispatcher.admit(Wish(model="a")):
        house.game()
        await house.reaches(State.PAUSING)
        await asyncio.sleep(0.2)
        assert house.watchdog.state is State.PAUSING
        house.watchdog.force()
        await house.reaches(State.PAUSED)
        assert ("kill", "a") in provider.calls


async def test_a_pause_placed_again_with_a_time_ends_at_that_time(house: House) -> None:
    async with house.running():
        pause = Hold(id="user", kind=HoldKind.USER, owner="user", cause=UserCause(), since=0.0)
        house.holds.place(pause)
        await house.reaches(State.PAUSED)
        ends_at_s = house.clock.monotonic_s() + 0.2
        house.holds.place(
            Hold(
                id="user",
                kind=HoldKind.USER,
                owner="user",
                cause=UserCause(),
                since=0.0,
                expires_at_s=ends_at_s,
            )
        )
        await house.reaches(State.RUNNING)


async def test_games_that_flicker_end_in_what_was_said_last_and_leave_no_task(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a", context_length=8192)
    provider.load_s = 0.02
    async with house.running():
        await asyncio.sleep(0.1)
        tasks_before = len(asyncio.all_tasks())
        for number in range(200):
            hold = house.game()
            await asyncio.sleep(0.005 * (number % 5))
            house.holds.end(hold.id)
            await asyncio.sleep(0.005 * (number % 3))
        await house.reaches(State.RUNNING)
        await until(lambda: set(provider.loaded) == {"a"})
        assert provider.loaded["a"].context_length == 8192
        assert house.journal.missing == ()
        await until(lambda: len(asyncio.all_tasks()) <= tasks_before)


# -- loads ---------------------------------------------------------------------------------------------


async def test_no_load_begins_while_the_gate_is_closed_whoever_asks(
    house: House, provider: FakeProvider
) -> None:
    async with house.running():
        house.game()
        with pytest.raises(Paused, match="Hades"):
            await house.loader.ensure(house.fleet.slots["fake"], LoadRequest(model="a"))
        await house.reaches(State.PAUSED)
        assert ("load", "a") not in provider.calls


async def test_a_preload_that_a_game_stops_goes_on_after_it(house: House, provider: FakeProvider) -> None:
    provider.load_s = 0.3
    async with house.running():
        work = preload(house.fleet, house.loader, house.watchdog, lambda: ["a", "b"])
        preloading = asyncio.create_task(work)
        await until(lambda: ("load", "a") in provider.calls)
        hold = house.game()
        await house.reaches(State.PAUSED)
        assert provider.loaded == {}
        house.holds.end(hold.id)
        async with asyncio.timeout(30):
            await preloading
        assert set(provider.loaded) == {"a", "b"}


# -- settings ------------------------------------------------------------------------------------------


async def test_models_of_a_provider_that_replaces_another_in_mid_pause_were_there_before(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        other = FakeProvider("other", ("y",), ProcessIdentity(777, 1))
        other.put("y", context_length=2048)
        house.providers.append(other)
        await house.fleet.replace([other])
        await until(lambda: other.loaded == {})
        await house.reaches(State.PAUSED)
        assert ConditionType.RELOADED not in house.fleet.slots["other"].conditions
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert other.loaded["y"].context_length == 2048


async def test_a_provider_that_the_settings_remove_in_mid_restore_does_not_break_the_rest(
    house: House, provider: FakeProvider
) -> None:
    other = FakeProvider("other", ("y",), ProcessIdentity(777, 1))
    house.providers.append(other)
    provider.put("a")
    other.put("y")
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        provider.load_s = 0.3
        house.holds.end(hold.id)
        await until(lambda: ("load", "a") in provider.calls)
        await house.fleet.replace([provider])
        await house.reaches(State.RUNNING)
        assert set(provider.loaded) == {"a"}
        assert [e.ref for e in house.journal.missing] == [ModelRef("other", "y")]


# -- the disk ------------------------------------------------------------------------------------------


async def test_a_full_disk_is_said_and_keeps_nobody_from_making_room(
    house: House, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.put("a", context_length=8192)
    write, is_full = house.journal._write, True

    def refusing(path: Path, data: bytes) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    house.journal._write = refusing
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        assert provider.loaded == {}
        said = house.seen(ev.JournalUnwritable)
        assert len(said) == 1, "once"
        assert "No space left" in said[0].message  # type: ignore[attr-defined]
        is_full = False
        await house.journal.note_set_aside(())
        assert "8192" in house.journal._path.read_text(), "written as soon as it can be"
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert provider.loaded["a"].context_length == 8192
    assert "Traceback" not in caplog.text


async def test_a_cancelled_write_of_the_journal_is_never_overtaken_by_a_later_one(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        write = house.journal._write
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()

        def slow(path: Path, data: bytes) -> None:
            if b'"set_aside":[]' in data:
                loop.call_soon_threadsafe(begun.set)
                asyncio.run(asyncio.sleep(0.3))
            write(path, data)

        house.journal._write = slow
        house.holds.end(hold.id)
        await begun.wait()  # the restore is writing that nothing is missing
        house.game()
        await house.reaches(State.PAUSED)
        assert '"model":"a"' in house.journal._path.read_text()


async def test_a_pause_that_ends_during_the_drain_cuts_no_answer_and_delays_no_resume(
    tmp_path: Path, provider: FakeProvider
) -> None:
    polite = EvictionSettings(drain_seconds=60, kill_after_seconds=60, confirm_seconds=1)
    house = House(tmp_path, provider, polite)
    provider.put("a")
    async with house.running(), house.dispatcher.admit(Wish(model="a")) as lease:
        hold = house.game()
        await asyncio.sleep(0.2)
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert lease.revoked_by is None
        assert set(provider.loaded) == {"a"}
