"""The states of models, as they come and go in the real services."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.services.house import FakeProvider, House
from tray_valet.core import events as ev
from tray_valet.core.config import EvictionSettings, Settings
from tray_valet.core.config_layers import build_settings
from tray_valet.core.config_tree import Origin, Place, from_plain
from tray_valet.core.errors import LoadFailed
from tray_valet.core.models import LoadedModel, LoadRequest, ModelRef, Observation
from tray_valet.core.watchdog import State
from tray_valet.services.catalog import Catalog
from tray_valet.services.model_states import ModelStates

A = ModelRef("fake", "a")
FAST = EvictionSettings(drain_seconds=0, kill_after_seconds=1, confirm_seconds=1)


class Told:
    """What the router would tell."""

    def __init__(self, house: House, settings: Settings | None = None) -> None:
        self.catalog = Catalog(house.fleet, house.loader, lambda: settings or Settings(), house.clock)
        self.states = ModelStates(house.fleet, house.loader, house.watchdog.closed_by, lambda _: None)

    def now(self) -> dict[str, str]:
        return {state.name: state.status for state in self.states.of_all(self.catalog.entries())}


async def test_a_model_is_starting_ready_stopping_and_off(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.load_s = 0.2
    async with House(tmp_path, provider, FAST).running() as house:
        told = Told(house)
        assert told.now() == {"a": "off", "b": "off"}
        slot = house.fleet.slots["fake"]
        loading = asyncio.create_task(house.loader.ensure(slot, LoadRequest(model="a")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert told.now()["a"] == "starting"
        await loading
        assert told.now()["a"] == "ready"
        provider.thawed.clear()
        leaving = asyncio.create_task(house.loader.unload(slot, "a"))
        async with asyncio.timeout(30):
            while not house.loader.unloading:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert told.now()["a"] == "stopping"
        provider.thawed.set()
        await leaving
        assert told.now()["a"] == "off"
        steps = [ev.kind_of(fact) for fact in house.facts if isinstance(fact, ev.STEPS)]
        assert steps == ["model_loading", "model_ready", "model_unloading", "model_gone"]


async def test_a_load_that_failed_is_not_told_as_loading_any_more(tmp_path: Path) -> None:
    provider = _TellsItsLoads()
    async with House(tmp_path, provider, FAST).running() as house:
        slot = house.fleet.slots["fake"]
        loading = asyncio.create_task(house.loader.ensure(slot, LoadRequest(model="a")))
        async with asyncio.timeout(30):
            await provider.has_begun.wait()
        await house.fleet.refresh([slot])
        assert Told(house).now()["a"] == "loading"
        provider.fails.set()
        with pytest.raises(LoadFailed):
            await loading
        assert Told(house).now()["a"] == "failed"


class _TellsItsLoads(FakeProvider):
    """Its loads fail, when they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun, self.fails = asyncio.Event(), asyncio.Event()

    async def observe(self) -> Observation:
        return Observation(loading=("a",) if self.has_begun.is_set() and not self.fails.is_set() else ())

    async def load(self, request: LoadRequest) -> LoadedModel:
        self.has_begun.set()
        await self.fails.wait()
        raise LoadFailed("It is broken.")


async def test_loads_to_bring_a_model_back_are_told_too(tmp_path: Path) -> None:
    async with House(tmp_path, FakeProvider(), FAST).running() as house:
        slot = house.fleet.slots["fake"]
        await house.loader.ensure(slot, LoadRequest(model="a"))
        hold = house.game()
        await house.reaches(State.PAUSED)
        assert Told(house).now()["a"] == "off"
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert len(house.seen(ev.ModelReady)) == 2
        assert len(house.seen(ev.ModelGone)) == 0  # a pause is no eject


async def test_what_is_loaded_already_is_no_load(tmp_path: Path) -> None:
    async with House(tmp_path, FakeProvider(), FAST).running() as house:
        slot = house.fleet.slots["fake"]
        await house.loader.ensure(slot, LoadRequest(model="a"))
        await house.loader.ensure(slot, LoadRequest(model="a", context_length=4096))
        assert len(house.seen(ev.ModelReady)) == 1
        await house.loader.ensure(slot, LoadRequest(model="a", context_length=8192))
        assert len(house.seen(ev.ModelReady)) == 2


async def test_an_alias_is_listed_first_and_stands_for_its_model(tmp_path: Path) -> None:
    change = {
        "providers": {"fake": {"kind": "ollama"}, "other": {"kind": "ollama", "url": "http://127.0.0.1:2"}},
        "routes": {"assistant": {"candidates": [{"provider": "fake", "model": "a"}]}},
    }
    settings = build_settings(from_plain(change, Place(Origin.FILE)), from_plain({}, Place(Origin.FILE)))
    house = House(tmp_path, FakeProvider(), FAST)
    house.providers.append(FakeProvider("other", models=("a", "assistant")))
    async with house.running():
        entries = Told(house, settings).catalog.entries()
        assert [(entry.name, str(entry.ref)) for entry in entries] == [
            ("assistant", "fake/a"),
            ("a", "fake/a"),
            ("b", "fake/b"),
            ("other/a", "other/a"),
            ("other/assistant", "other/assistant"),
        ]
        catalog = Told(house, settings).catalog
        assert str(catalog.ref_of("assistant")) == "fake/a"
        assert str(catalog.ref_of("other/assistant")) == "other/assistant"
        assert str(catalog.ref_of("b")) == "fake/b"
        assert catalog.ref_of("nothing") is None
        assert Told(house, settings).now() == dict.fromkeys(("a", "b", "other/a", "other/assistant"), "off")
