"""Providers are told once that a game begins and once that it has ended."""

from __future__ import annotations

from pathlib import Path

from tests.services.house import FakeProvider, House
from tray_valet.core.config import EvictionSettings
from tray_valet.core.holds import Hold, HoldKind, UserCause
from tray_valet.services.cpu_yield import CpuYield


def told(provider: FakeProvider) -> list[str]:
    return [what for call, what in provider.calls if call == "yield_cpu"]


async def test_a_games_hold_in_effect_is_the_reason(tmp_path: Path) -> None:
    provider = FakeProvider()
    house = House(tmp_path, provider, EvictionSettings())
    await house.fleet.replace([provider])
    holds: list[Hold] = []
    yielding = CpuYield(house.fleet, lambda: tuple(holds))
    yielding.look()
    holds.append(Hold(id="u", kind=HoldKind.USER, owner="user", cause=UserCause(), since=0.0))
    yielding.look()
    assert told(provider) == []
    assert not yielding.is_yielding
    holds.append(house.game())
    yielding.look()
    yielding.look()
    assert told(provider) == ["True"]
    assert yielding.is_yielding
    newcomer = FakeProvider("late")
    await house.fleet.replace([provider, newcomer])
    yielding.look()
    assert told(newcomer) == ["True"]
    holds.clear()
    yielding.look()
    yielding.look()
    assert told(provider) == told(newcomer) == ["True", "False"]


async def test_a_provider_that_was_replaced_in_mid_game_is_told_anew(tmp_path: Path) -> None:
    house = House(tmp_path, FakeProvider(), EvictionSettings())
    yielding = CpuYield(house.fleet, lambda: (house.game(),))
    first, second = FakeProvider(), FakeProvider()
    for provider in (first, second):
        await house.fleet.replace([provider])
        yielding.look()
        assert told(provider) == ["True"]
