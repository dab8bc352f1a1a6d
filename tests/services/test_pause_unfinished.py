"""A pause that cannot be completed is said, once, with what stays in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.services.house import FakeProvider, House
from tray_valet.core import events as ev
from tray_valet.core.config import EvictionSettings
from tray_valet.core.errors import CannotKill
from tray_valet.core.watchdog import State

QUICK = EvictionSettings(drain_seconds=0.1, kill_after_seconds=0.1, confirm_seconds=0.2)


async def test_a_provider_that_holds_on_and_cannot_be_ended_is_named_once_in_a_pause(tmp_path: Path) -> None:
    provider = FakeProvider()
    house = House(tmp_path, provider, QUICK)
    provider.put("a")
    provider.ignores_unload = True
    provider.kill_error = CannotKill("It belongs to another user.", remedy="sudo systemctl restart ollama")
    async with house.running():
        house.game()
        async with asyncio.timeout(30):
            while len([call for call in provider.calls if call[0] == "kill"]) < 3:  # noqa: ASYNC110  it has no event
                await asyncio.sleep(0.05)
        assert house.watchdog.state is State.PAUSING
        (fact,) = house.seen(ev.PauseUnfinished)
        assert isinstance(fact, ev.PauseUnfinished)
        assert fact.cause == "Hades"
        assert "systemctl" in fact.message
