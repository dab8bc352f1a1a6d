"""A model whose load takes its provider down each time is given up, and that is said."""

from __future__ import annotations

from pathlib import Path

from tests.services.house import FakeProvider, House
from tray_valet.core import events as ev
from tray_valet.core.config import EvictionSettings
from tray_valet.core.errors import ProviderUnreachable
from tray_valet.core.watchdog import State


def loads_of(provider: FakeProvider, model: str) -> int:
    return provider.calls.count(("load", model))


async def test_after_three_times_down_in_the_middle_of_its_load_it_is_given_up(tmp_path: Path) -> None:
    provider = FakeProvider()
    house = House(tmp_path, provider, EvictionSettings())
    async with house.running():
        provider.put("a")
        await house.fleet.refresh()
        hold = house.game()
        await house.reaches(State.PAUSED)
        provider.load_errors = [ProviderUnreachable("It went away.") for _ in range(50)]
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        [fact] = house.seen(ev.RestoreFailed)
        assert isinstance(fact, ev.RestoreFailed)
        assert "3 times" in fact.message
        assert fact.next_try_s is None
        assert loads_of(provider, "a") == 3
        assert house.journal.missing == ()


async def test_a_provider_that_goes_away_twice_and_then_stays_gets_its_model_back(tmp_path: Path) -> None:
    provider = FakeProvider()
    house = House(tmp_path, provider, EvictionSettings())
    async with house.running():
        provider.put("a")
        await house.fleet.refresh()
        hold = house.game()
        await house.reaches(State.PAUSED)
        provider.load_errors = [ProviderUnreachable("It went away.") for _ in range(2)]
        house.holds.end(hold.id)
        await house.reaches(State.RUNNING)
        assert set(provider.loaded) == {"a"}
        assert house.seen(ev.RestoreFailed) == []
