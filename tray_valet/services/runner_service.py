"""Start, stop and restart for providers whose runners we start ourselves: they have no service.

Decides: what the words mean there: stop unloads what is loaded, restart loads the same again.
Must not: bring back more than there was, or load while the gate is closed (the loader refuses).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tray_valet.core import events as ev
from tray_valet.core.errors import CannotKill, NotSupported, Paused
from tray_valet.core.events_providers import ServiceStarted, ServiceStopped
from tray_valet.core.journal import entry_of, request_of
from tray_valet.core.models import ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.service_plan import ServiceAction
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.loader import Loader

Work = Callable[[], Awaitable[ev.Fact]]


class RunnerService:
    """Acts on one provider's runners. `unload` is the user's unload of all that a provider holds."""

    def __init__(
        self, fleet: Fleet, loader: Loader, clock: Clock, unload: Callable[[str], Awaitable[object]]
    ) -> None:
        self._fleet = fleet
        self._loader = loader
        self._clock = clock
        self._unload = unload

    def prepare(self, action: ServiceAction, slot: Slot, *, is_forced: bool) -> tuple[Work | None, str]:
        """What is to be done (None: nothing), and the sentence that says so."""
        if action is ServiceAction.START:
            return None, f"{slot.name} has nothing to start: its models are started when they are asked for."
        if not slot.loaded and not self._loading(slot):
            return None, f"{slot.name} has no model loaded, so nothing runs."
        if action is ServiceAction.STOP:
            return lambda: self._stop(slot, is_forced), f"The models of {slot.name} are being unloaded."
        return lambda: self._restart(slot), f"The models of {slot.name} are being loaded anew."

    async def give_up_loads(self, slot: Slot) -> None:
        """Give up what is being loaded there; who waits for it is told."""
        # As by a pause: what is being brought back stays in the journal for when the provider is back.
        await self._loader.stop(self._loading(slot), Paused(f"{slot.name} is being stopped."))

    def _loading(self, slot: Slot) -> list[ModelRef]:
        return [ref for ref in self._loader.loading if ref.provider == slot.name]

    async def _stop(self, slot: Slot, is_forced: bool) -> ev.Fact:
        began_s = self._clock.monotonic_s()
        await self.give_up_loads(slot)
        if is_forced:
            await self._kill_all(slot)
        await self._unload(slot.name)
        return ServiceStopped(
            provider=slot.name, took_s=self._clock.monotonic_s() - began_s, was_killed=is_forced
        )

    async def _kill_all(self, slot: Slot) -> None:
        for model in slot.loaded:
            try:
                await slot.provider.kill(model.name)
            except (CannotKill, NotSupported):
                continue  # it is unloaded in the usual way then

    async def _restart(self, slot: Slot) -> ev.Fact:
        began_s = self._clock.monotonic_s()
        await self.give_up_loads(slot)
        before = [entry_of(slot.name, model) for model in slot.loaded]
        await self._unload(slot.name)
        for entry in before:
            await self._loader.ensure(slot, request_of(entry), makes_room=False)
        took_s = self._clock.monotonic_s() - began_s
        return ServiceStarted(provider=slot.name, took_s=took_s, is_restart=True)
