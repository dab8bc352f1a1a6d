"""An unload that somebody asks for: answers get the usual drain, then a clear end; nothing new slips in."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any, cast

import pytest

from tests.services.house import FakeProvider, House
from tray_valet.core import events as ev
from tray_valet.core.commands import Wish
from tray_valet.core.config import EvictionSettings, Settings
from tray_valet.core.errors import LoadFailed, ProviderUnreachable, UnknownModel, ValetError
from tray_valet.core.models import LoadRequest, ModelRef
from tray_valet.core.traffic import Exchanged, Outcome
from tray_valet.core.watchdog import State
from tray_valet.services.activity import Activity
from tray_valet.services.request_log import RequestLog
from tray_valet.services.tally import TallyBook
from tray_valet.services.traffic import Traffic
from tray_valet.services.valet import ValetService

A = ModelRef("fake", "a")


class _Store:
    def __init__(self, settings: Settings) -> None:
        self.current = settings


def valet_in(house: House, tmp_path: Path, drain_seconds: float) -> ValetService:
    """The facade over the house, for unloads."""
    return valet_over(house, tmp_path, Settings(eviction=EvictionSettings(drain_seconds=drain_seconds)))


def valet_over(house: House, tmp_path: Path, settings: Settings, **more: Any) -> ValetService:
    """The facade over the house; what the house does not have is left out."""
    parts: dict[str, Any] = {
        "clock": house.clock,
        "table": house.table,
        "settings": cast("Any", _Store(settings)),
        "activity": Activity(house.clock),
        "holds": house.holds,
        "fleet": house.fleet,
        "loader": house.loader,
        "dispatcher": house.dispatcher,
        "leases": house.leases,
        "journal": house.journal,
        "watchdog": house.watchdog,
        "traffic": Traffic(),
        "tally": TallyBook(house.clock),
        "request_log": RequestLog(tmp_path / "requests.jsonl"),
        "quit_requested": asyncio.Event(),
        **more,
    }
    untouched = dict.fromkeys(inspect.signature(ValetService).parameters)
    return ValetService(**(untouched | parts))


async def _answer(valet: ValetService, finished: asyncio.Event, revoked: list[ValetError]) -> None:
    async with valet.admit(Wish(model="a")) as lease:
        ended = asyncio.Event()

        def end(why: ValetError) -> None:
            revoked.append(why)
            ended.set()

        lease.when_revoked(end)
        waits = [asyncio.create_task(finished.wait()), asyncio.create_task(ended.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


async def _in_flight(house: House) -> None:
    async with asyncio.timeout(30):
        while not house.leases.count(A):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_an_answer_that_goes_on_too_long_is_ended_and_says_why(tmp_path: Path) -> None:
    async with House(tmp_path, FakeProvider(), EvictionSettings()).running() as house:
        valet = valet_in(house, tmp_path, drain_seconds=0.05)
        revoked: list[ValetError] = []
        answer = asyncio.create_task(_answer(valet, asyncio.Event(), revoked))
        await _in_flight(house)
        assert await valet.unload("a") == (A,)
        await answer
        assert [str(why) for why in revoked] == ["a was unloaded on request, and this answer with it."]
        kinds = [entry.kind for entry in valet.activity()]
        assert kinds == ["model_unloaded", "answers_ended"]


async def test_an_answer_that_ends_in_time_is_whole(tmp_path: Path) -> None:
    async with House(tmp_path, FakeProvider(), EvictionSettings()).running() as house:
        valet = valet_in(house, tmp_path, drain_seconds=30)
        finished, revoked = asyncio.Event(), list[ValetError]()
        answer = asyncio.create_task(_answer(valet, finished, revoked))
        await _in_flight(house)
        unload = asyncio.create_task(valet.unload("a"))
        async with asyncio.timeout(30):
            while not house.loader.unloading:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert house.fleet.is_loaded(A) is not None  # it waits
        finished.set()
        await answer
        assert await unload == (A,)
        assert revoked == []


async def test_a_request_that_comes_meanwhile_gets_the_model_loaded_anew(tmp_path: Path) -> None:
    provider = FakeProvider()
    async with House(tmp_path, provider, EvictionSettings()).running() as house:
        valet = valet_in(house, tmp_path, drain_seconds=0.2)
        revoked: list[ValetError] = []
        first = asyncio.create_task(_answer(valet, asyncio.Event(), revoked))
        await _in_flight(house)
        unload = asyncio.create_task(valet.unload("a"))
        async with asyncio.timeout(30):
            while not house.loader.unloading:  # noqa: ASYNC110
                await asyncio.sleep(0)
        late: list[ValetError] = []
        finished = asyncio.Event()
        second = asyncio.create_task(_answer(valet, finished, late))
        await unload
        await first
        finished.set()
        await asyncio.wait_for(second, 30)
        assert (len(revoked), late) == (1, [])
        assert [call for call in provider.calls if call[1] == "a"] == [
            ("load", "a"),
            ("unload", "a"),
            ("load", "a"),
        ]


async def test_what_is_not_loaded_or_not_there(tmp_path: Path) -> None:
    async with House(tmp_path, FakeProvider(), EvictionSettings()).running() as house:
        valet = valet_in(house, tmp_path, drain_seconds=0)
        assert await valet.unload("a") == ()
        with pytest.raises(UnknownModel):
            await valet.unload("nothing")


async def test_all_are_unloaded_together(tmp_path: Path) -> None:
    async with House(tmp_path, FakeProvider(), EvictionSettings()).running() as house:
        valet = valet_in(house, tmp_path, drain_seconds=0)
        await house.loader.ensure(house.fleet.slots["fake"], _wish("a"))
        await house.loader.ensure(house.fleet.slots["fake"], _wish("b"))
        assert sorted(map(str, await valet.unload())) == ["fake/a", "fake/b"]
        assert len(house.seen(ev.ModelGone)) == 2


async def test_a_reset_answers_with_the_models_state(tmp_path: Path) -> None:
    async with House(tmp_path, FakeProvider(), EvictionSettings()).running() as house:
        valet = valet_in(house, tmp_path, drain_seconds=0)
        state = await valet.reset_model("a")
        assert (state.ref, state.status) == (A, "off")
        with pytest.raises(UnknownModel):
            await valet.reset_model("nothing")


async def test_a_refusal_counts_for_the_model_that_was_meant(tmp_path: Path) -> None:
    async with House(tmp_path, FakeProvider(), EvictionSettings()).running() as house:
        valet = valet_in(house, tmp_path, drain_seconds=0)
        for asked in ("a", "fake/a", "nothing"):
            refusal = Exchanged(
                at=1.0, asked=asked, path="/v1/chat/completions", outcome=Outcome.REFUSED, status=503
            )
            valet.note_exchange(refusal)
        counted = {model.model: sum(model.outcomes.values()) for model in valet.traffic().models}
        assert counted == {"fake/a": 2, "": 1}


async def test_whoever_asks_is_told_of_every_request_that_has_ended_and_so_is_the_log(tmp_path: Path) -> None:
    """What is noted of a request may be worked out when it is over, but it is there for who looks."""
    worked_out = []

    class Over:
        def record(self) -> Exchanged:
            worked_out.append(self)
            return Exchanged(at=1.0, asked="a", path="/v1/chat/completions", provider="fake", model="a")

    async with House(tmp_path, FakeProvider(), EvictionSettings()).running() as house:
        log = RequestLog(tmp_path / "requests.jsonl")
        valet = valet_over(house, tmp_path, Settings(), request_log=log)
        for number in range(1, 8):
            valet.note_exchange(Over())
            assert valet.traffic().requests_total == number
        valet.note_exchange(Over())
        await log.close()
        assert (tmp_path / "requests.jsonl").read_text().count("\n") == 8
        assert len(worked_out) == len(set(worked_out)) == 8


def _wish(model: str) -> Any:
    from tray_valet.core.models import LoadRequest

    return LoadRequest(model=model)


async def test_a_model_is_leaving_until_the_last_unload_of_it_is_over(tmp_path: Path) -> None:
    gate, calls = asyncio.Event(), []

    class Slow(FakeProvider):
        async def unload(self, model: str) -> None:
            calls.append(model)
            if len(calls) == 2:
                await gate.wait()
            await super().unload(model)

    provider = Slow()
    provider.put("a")
    house = House(tmp_path, provider, EvictionSettings())
    async with house.running(), asyncio.timeout(10):
        slot = house.fleet.slots["fake"]
        first, second = (asyncio.create_task(house.loader.unload(slot, "a")) for _ in range(2))
        await first
        assert house.loader.is_leaving(A), "a request that came now would load it, and lose it again"
        gate.set()
        await second
        assert not house.loader.is_leaving(A)


async def test_a_model_that_is_unloaded_while_it_is_being_brought_back_stays_out(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.put("a")
    provider.put("b")
    house = House(tmp_path, provider, EvictionSettings(drain_seconds=0.2))
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        provider.load_s = 1.0
        house.holds.end(hold.id)
        async with asyncio.timeout(30):
            while A not in house.loader.loading:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        await valet_in(house, tmp_path, 0.2).unload("a")
        await house.reaches(State.RUNNING)
        assert set(provider.loaded) == {"b"}
        assert house.journal.missing == ()
        assert house.seen(ev.RestoreFailed) == []
        assert provider.calls.count(("load", "a")) == 1


async def test_a_load_that_an_unload_ends_is_one_that_it_ended(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.load_s = 30.0
    house = House(tmp_path, provider, EvictionSettings(drain_seconds=0.2))
    async with house.running():
        loading = asyncio.create_task(house.loader.ensure(house.fleet.slots["fake"], LoadRequest(model="a")))
        async with asyncio.timeout(30):
            while A not in house.loader.loading:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        valet = valet_in(house, tmp_path, 0.2)
        assert await valet.unload("a") == (A,)
        with pytest.raises(LoadFailed, match="was unloaded while it was loading"):
            await loading
        assert [entry.kind for entry in valet.activity()] == ["model_unloaded"]


async def test_a_load_at_a_provider_that_does_not_answer_leaves_the_pause_as_it_is(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.put("b")
    house = House(tmp_path, provider, EvictionSettings(drain_seconds=0.2))
    async with house.running():
        await house.fleet.installed()
        valet = valet_in(house, tmp_path, drain_seconds=0.2)
        await valet.pause()
        provider.is_away = True
        while not house.fleet.slots["fake"].is_down:
            await house.fleet.refresh()
        with pytest.raises(ProviderUnreachable):
            await valet.load("a")
        assert [hold.id for hold in house.holds.in_effect] == ["user"]
        provider.is_away = False  # nobody has looked since
        assert (await valet.load("a"))[0] == A
