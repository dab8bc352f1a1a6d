"""Eviction and restore when things go wrong: stubborn providers, memory that stays, loads that fail."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from tests.services.house import GB, FakeProvider, House, machine
from tray_valet.core import events as ev
from tray_valet.core.commands import Wish
from tray_valet.core.config import EvictionSettings
from tray_valet.core.errors import CannotKill, LoadFailed, Paused
from tray_valet.core.holds import Hold, HoldKind, UserCause
from tray_valet.core.models import ConditionType, Demand, LoadRequest, ModelRef
from tray_valet.core.watchdog import State

QUICK = EvictionSettings(drain_seconds=0.2, kill_after_seconds=0.3, confirm_seconds=0.5)


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def house(tmp_path: Path, provider: FakeProvider) -> House:
    return House(tmp_path, provider, QUICK)


async def test_paused_is_said_only_when_the_memory_itself_was_seen_to_drop(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    provider.holds_memory_s = 0.3
    async with house.running():
        house.game()
        await house.reaches(State.PAUSED)
        assert provider.memory_bytes == 0
        report = house.evictor.last_pause
        assert report is not None
        assert report.is_confirmed_by_memory is True
        assert report.freed_bytes == 4 * GB
        assert report.took_s >= 0.3


async def test_memory_that_stays_leads_to_the_process_being_ended(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    provider.holds_memory_s = 1000
    async with house.running():
        house.game()
        await house.reaches(State.PAUSED)
        assert ("kill", "a") in provider.calls
        assert provider.memory_bytes == 0


async def test_memory_that_stays_in_a_process_that_cannot_be_ended_is_never_called_paused(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    provider.holds_memory_s = 1000
    provider.kill_error = CannotKill("It belongs to another user.", remedy="sudo systemctl restart ollama")
    async with house.running():
        house.game()
        async with asyncio.timeout(30):
            while provider.calls.count(("kill", "a")) < 2:  # noqa: ASYNC110  it has no event
                await asyncio.sleep(0.02)
        assert house.watchdog.state is State.PAUSING
        conditions = house.fleet.slots["fake"].conditions
        assert "still in use" in conditions[ConditionType.MEMORY_STILL_HELD].reason
        assert "systemctl" in conditions[ConditionType.CANNOT_KILL].reason
        assert len(house.seen(ev.MemoryStillHeld)) == 1, "said once"
        provider.kill_error = None
        await house.reaches(State.PAUSED)
        assert ConditionType.MEMORY_STILL_HELD not in conditions


async def test_a_model_that_is_not_let_go_is_killed_after_the_drain_and_its_time(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    provider.ignores_unload = True
    async with house.running():
        house.game()
        await house.reaches(State.PAUSED)
        killed = house.seen(ev.RunnerKilled)
        assert len(killed) == 1


async def test_a_model_that_can_neither_be_unloaded_nor_killed_stays_pausing_with_its_remedy(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    provider.ignores_unload = True
    provider.kill_error = CannotKill("It belongs to another user.", remedy="sudo systemctl restart ollama")
    async with house.running():
        house.game()
        async with asyncio.timeout(30):
            while "another user" not in house.evictor.still_held:  # noqa: ASYNC110  it has no event
                await asyncio.sleep(0.02)
        assert house.watchdog.state is State.PAUSING
        provider.ignores_unload = False
        await house.reaches(State.PAUSED)


async def test_a_forced_pause_kills_first(house: House, provider: FakeProvider) -> None:
    provider.put("a")
    async with house.running():
        house.watchdog.force()
        house.game()
        await house.reaches(State.PAUSED)
        assert provider.calls[0] == ("kill", "a")


async def test_the_journal_is_on_disk_before_the_first_unload(house: House, provider: FakeProvider) -> None:
    provider.put("a", context_length=8192)
    path = house.journal._path
    seen: list[str] = []
    unload = provider.unload

    async def watched(model: str) -> None:
        seen.append(path.read_text())
        await unload(model)

    provider.unload = watched  # type: ignore[method-assign]
    async with house.running():
        house.game()
        await house.reaches(State.PAUSED)
    assert '"model":"a"' in seen[0]
    assert "8192" in seen[0]


async def test_a_direct_client_that_keeps_loading_is_met_with_back_off_and_said(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    async with house.running():
        house.game()
        await house.reaches(State.PAUSED)
        for _ in range(20):
            provider.put("b")
            await asyncio.sleep(0.1)
        async with asyncio.timeout(30):
            while not house.seen(ev.ModelReloadedDuringPause):  # noqa: ASYNC110  facts are a list here
                await asyncio.sleep(0.02)
        unloads = [call for call in provider.calls if call == ("unload", "b")]
        assert 1 <= len(unloads) <= 3, "evicted again, but no stutter"
        condition = house.fleet.slots["fake"].conditions[ConditionType.RELOADED]
        assert "past the valet" in condition.reason
        assert "router" in condition.reason, "what to do about it"


async def test_restore_brings_back_the_journalled_set_with_context_and_ttl(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a", context_length=8192, ttl_left_s=120.0)
    provider.put("b", context_length=2048, ttl_left_s=None)
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert [(r.model, r.context_length, r.ttl_s) for r in provider.requests] == [
            ("a", 8192, 120.0),
            ("b", 2048, math.inf),
        ]
        assert house.journal.missing == ()


async def test_a_model_in_use_past_its_time_comes_back_with_the_providers_default_ttl(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a", ttl_left_s=0.0)
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert provider.requests[0].ttl_s is None


async def test_a_restore_that_fails_once_is_tried_again_and_one_that_cannot_work_is_given_up(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    provider.put("gone")
    provider.load_errors = [LoadFailed("out of memory")]
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert set(provider.loaded) == {"a"}
        assert [f.model for f in house.seen(ev.RestoreFailed)] == ["a", "gone"]  # type: ignore[attr-defined]
        assert house.journal.missing == ()


async def test_one_model_that_fails_does_not_hold_up_the_others(house: House, provider: FakeProvider) -> None:
    provider.put("a")
    provider.put("b")
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        provider.load_errors = [LoadFailed("out of memory")]
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        loads = [name for what, name in provider.calls if what == "load"]
        assert loads == ["a", "b", "a"], "the failed one is tried again after the rest"
        assert set(provider.loaded) == {"a", "b"}
        assert not house.seen(ev.LoadRefused), "said once, as a restore that failed"


async def test_models_that_do_not_fit_wait_for_room_and_a_manual_resume_tries_all_the_same(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        house.sample = machine(ram_free_bytes=2 * GB)
        house.holds.end(hold.id)
        await asyncio.sleep(0.5)
        assert house.watchdog.state is State.PAUSED
        assert house.watchdog.does_not_fit.startswith("They need 4.0")
        house.holds.resume_by_user()
        house.watchdog.resume_anyway()
        await house.reaches(State.RUNNING)
        assert set(provider.loaded) == {"a"}


async def test_models_that_fit_again_come_back_by_themselves(house: House, provider: FakeProvider) -> None:
    provider.put("a")
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        house.sample = machine(ram_free_bytes=2 * GB)
        house.holds.end(hold.id)
        await asyncio.sleep(0.3)
        house.sample = machine(ram_free_bytes=16 * GB)
        await house.reaches(State.RUNNING)


async def test_a_pause_that_ends_before_it_began_leaves_everything_as_it_was(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    async with house.running():
        for _ in range(10):
            hold = house.game()
            await asyncio.sleep(0)
            house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        await asyncio.sleep(0.5)
        await house.reaches(State.RUNNING)
        assert set(provider.loaded) == {"a"}
        assert house.journal.missing == ()


async def test_v24_pauses_and_resumes_in_quick_succession_end_in_what_was_said_last(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    provider.load_s = 0.05
    async with house.running():
        for _ in range(8):
            hold = house.game()
            await asyncio.sleep(0.07)
            house.holds.end(hold.id)
            await asyncio.sleep(0.03)
        await house.reaches(State.RUNNING)
        await asyncio.sleep(0.3)
        assert house.watchdog.state is State.RUNNING
        assert set(provider.loaded) == {"a"}
        house.game()
        await house.reaches(State.PAUSED)
        assert provider.loaded == {}


async def test_a_load_in_progress_is_given_up_for_a_game_and_whoever_waits_is_told(
    house: House, provider: FakeProvider
) -> None:
    provider.load_s = 30
    async with house.running():

        async def ask() -> None:
            async with house.dispatcher.admit(Wish(model="a")):
                raise AssertionError("admitted during a game")

        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.2)
        house.game()
        await house.reaches(State.PAUSED)
        with pytest.raises(Paused, match="Hades"):
            await asking
        assert provider.loaded == {}


async def test_concurrent_cold_requests_share_one_load(house: House, provider: FakeProvider) -> None:
    provider.load_s = 0.1

    async def ask() -> str:
        async with house.dispatcher.admit(Wish(model="a")) as lease:
            return lease.upstream.model

    async with house.running():
        assert await asyncio.gather(*(ask() for _ in range(20))) == ["a"] * 20
    assert provider.calls == [("load", "a")]


async def test_a_load_with_a_context_of_its_own_gets_it_although_another_load_is_under_way(
    house: House, provider: FakeProvider
) -> None:
    provider.load_s = 0.1
    async with house.running():
        slot = house.fleet.slots["fake"]
        first = asyncio.create_task(house.loader.ensure(slot, LoadRequest(model="a", context_length=2048)))
        await asyncio.sleep(0.02)
        loaded = await house.loader.ensure(slot, LoadRequest(model="a", context_length=8192))
        assert (await first).context_length == 2048
        assert loaded.context_length == 8192


async def test_a_request_for_a_model_that_is_to_come_back_loads_it_as_it_was(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a", context_length=8192)
    async with house.running():
        hold = house.game(wait_s=0.0)
        await house.reaches(State.PAUSED)
        assert house.restorer.request_for(ModelRef("fake", "a")).context_length == 8192
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
    assert [r.context_length for r in provider.requests] == [8192]


async def test_a_pause_after_a_pause_keeps_what_the_first_one_noted(
    tmp_path: Path, house: House, provider: FakeProvider
) -> None:
    provider.put("a", context_length=8192)
    provider.put("b", context_length=2048)
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        provider.load_s = 0.3
        house.holds.end(hold.id)
        async with asyncio.timeout(30):
            while not provider.loaded:  # noqa: ASYNC110  then one is back, the other on its way
                await asyncio.sleep(0.02)
        hold = house.game()
        await house.reaches(State.PAUSED)
        assert {(e.model, e.context_length) for e in house.journal.missing} == {("a", 8192), ("b", 2048)}
        provider.load_s = 0.0
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert {n: m.context_length for n, m in provider.loaded.items()} == {"a": 8192, "b": 2048}


@pytest.mark.parametrize(
    "content", [b"", b'{"version": 1, "set_aside": [{', b'{"set_aside": [{"provider": "\xff"}]}']
)
async def test_a_damaged_journal_is_kept_aside_and_does_not_stop_the_start(
    tmp_path: Path, house: House, content: bytes
) -> None:
    (tmp_path / "journal.json").write_bytes(content)
    house.journal.read()
    assert house.journal.missing == ()
    assert (tmp_path / "journal.damaged").read_bytes() == content


async def test_a_damaged_journal_that_cannot_be_put_aside_does_not_stop_the_start(
    tmp_path: Path, house: House
) -> None:
    (tmp_path / "journal.damaged" / "in the way").mkdir(parents=True)
    (tmp_path / "journal.json").write_bytes(b"{")
    house.journal.read()
    assert house.journal.missing == ()


@pytest.mark.parametrize(
    ("kind", "gpu_is_open", "cpu_is_open"),
    [
        (HoldKind.GAME, False, True),
        (HoldKind.VRAM, False, True),
        (HoldKind.USER, False, True),
        (HoldKind.RAM, False, False),
        (HoldKind.CPU, False, False),
    ],
)
async def test_the_gate_stops_what_the_hold_is_about_and_never_what_is_answered_elsewhere(
    house: House, kind: HoldKind, gpu_is_open: bool, cpu_is_open: bool
) -> None:
    async with house.running():
        house.holds.place(Hold(id="h", kind=kind, owner="valet", cause=UserCause(), since=0.0))
        await house.reaches(State.PAUSED)
        gate = house.watchdog.closed_by
        assert (gate(Demand.GPU) is None) is gpu_is_open
        assert (gate(Demand.CPU) is None) is cpu_is_open
        assert gate(Demand.NOTHING) is None


async def test_a_resume_while_the_models_are_coming_back_leaves_the_reason_as_it_is(
    house: House, provider: FakeProvider
) -> None:
    provider.put("a")
    provider.load_s = 0.5
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        house.holds.end(hold.id)
        await house.reaches(State.RESUMING)
        house.holds.resume_by_user()
        house.watchdog.resume_anyway()
        await house.reaches(State.RUNNING)
        assert house.watchdog.reason.endswith(" — ended")
