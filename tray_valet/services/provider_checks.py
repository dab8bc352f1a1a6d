"""Tests that the user asks for (`core.desks.Checks`).

Decides: what a look at a provider consists of, and how long it may take.
Must not: start or load anything, or run a command: a look is what the valet does all the time anyway.
"""

from __future__ import annotations

import asyncio

from tray_valet.core.desks import ProviderProbe
from tray_valet.core.errors import TimedOut, UpstreamFailed
from tray_valet.core.models import ConditionType
from tray_valet.core.ports import Clock
from tray_valet.services.fleet import Fleet

_LOOK_S = 8.0


class ProviderChecks:
    """Implements `core.desks.Checks`."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock

    async def provider(self, name: str) -> ProviderProbe:
        provider = self._fleet.slot(name).provider
        began_s = self._clock.monotonic_s()
        provider.look_afresh()
        try:
            async with asyncio.timeout(_LOOK_S):
                seen = await provider.observe()
                installed = await provider.installed()
        except TimeoutError:
            raise TimedOut(
                f"{name} did not answer within {_LOOK_S:.0f} seconds.",
                remedy=f"Look whether it runs and whether {provider.endpoint} is its address.",
            ) from None
        took_s = self._clock.monotonic_s() - began_s
        self._fleet.look_soon()
        if refusal := seen.problems.get(ConditionType.KEY_MISSING):
            raise UpstreamFailed(refusal)
        return ProviderProbe(
            provider=name,
            kind=provider.kind.value,
            url=provider.endpoint,
            took_s=took_s,
            version=seen.version,
            models=tuple(model.name for model in installed),
            loaded=tuple(model.name for model in seen.loaded),
        )
