"""Models nobody uses: unloaded when their time is up, never while a request is in flight.

Decides: when an idle model of ours goes. Must not: touch providers that keep that time themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tray_valet.core.errors import ValetError
from tray_valet.core.events import Fact, ModelUnloaded
from tray_valet.core.models import ModelRef, ProviderKind
from tray_valet.services.fleet import Fleet
from tray_valet.services.leases import Leases
from tray_valet.services.loader import Loader

_LOG = logging.getLogger(__name__)
_LOOK_S = 5.0


class IdleUnloader:
    """Unloads runners of ours whose time to live has run out."""

    def __init__(
        self,
        fleet: Fleet,
        loader: Loader,
        leases: Leases,
        record: Callable[[Fact], None],
        idle_timeout_s: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._loader = loader
        self._leases = leases
        self._record = record
        self._idle_timeout_s = idle_timeout_s

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Unload what nobody has used for its time to live."""
        owned = [s for s in self._fleet.slots.values() if s.provider.kind is ProviderKind.LLAMA_SERVER]
        if not any(slot.loaded for slot in owned):
            return
        await self._fleet.refresh(owned)
        for slot in owned:
            for model in slot.loaded:
                ref = ModelRef(slot.name, model.name)
                if model.ttl_left_s is None or model.ttl_left_s > 0:
                    continue
                if self._leases.count(ref):
                    self._loader.touch(ref)
                    continue
                try:
                    await self._loader.unload(slot, model.name)
                except ValetError as error:
                    _LOG.warning("%s could not be unloaded after its idle time: %s", model.name, error)
                    continue
                self._record(
                    ModelUnloaded(
                        model=model.name, size_bytes=model.size_bytes, idle_s=self._idle_timeout_s()
                    )
                )
