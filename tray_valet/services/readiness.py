"""Readiness: whether a model can take the next request as it is, and bringing it in where it cannot.

Decides: when a model is loaded anew for a larger context. Must not: queue requests, or know routes.

A context that is large enough stays, also for those who asked for less: two aliases of one model that want
different ones would else have it loaded anew in turns.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tray_valet.core.commands import Overrides
from tray_valet.core.models import Demand, LoadedModel, LoadRequest, ModelRef, ProviderKind
from tray_valet.core.queueing import Ticket
from tray_valet.services.fleet import Fleet
from tray_valet.services.loader import Loader
from tray_valet.services.waiting_line import Room, WaitingLine


class Readiness:
    """`request_for(ref)` is how a model is to be loaded: one that is about to be brought back, as it was.
    `is_machine_busy` tells whether something else has the machine."""

    def __init__(
        self,
        fleet: Fleet,
        request_for: Callable[[ModelRef], LoadRequest],
        is_machine_busy: Callable[[], bool],
    ) -> None:
        self._fleet = fleet
        self._request_for = request_for
        self._is_machine_busy = is_machine_busy
        self._most_context: dict[ModelRef, int] = {}  # tokens: what came of a wish for more
        self._elsewhere: set[ModelRef] = set()  # answered somewhere else, though their provider is here
        self.loader: Loader | None = None

    def forget(self, ref: ModelRef) -> None:
        """Forget a model that is gone."""
        self._most_context.pop(ref, None)
        self._elsewhere.discard(ref)

    def overrides(self, ref: ModelRef, overrides: Overrides, kind: ProviderKind) -> Overrides:
        """What a route changes in a request, so that the model is not loaded anew for less context."""
        asked = overrides.context_length
        if asked is None or kind is not ProviderKind.OLLAMA:
            return overrides
        loaded = self._fleet.is_loaded(ref)
        if loaded is None or loaded.context_length is None or loaded.context_length <= asked:
            return overrides
        return msgspec.structs.replace(overrides, context_length=loaded.context_length)

    def room(self, line: WaitingLine, context_length: int | None) -> Room:
        """Whether the next request may go to a model, and how."""
        ref = line.ref
        slot = self._fleet.slots.get(ref.provider)
        if (slot is not None and not slot.provider.can_unload) or ref in self._elsewhere:
            return Room.READY  # there is nothing to load
        assert self.loader is not None
        loaded = self._fleet.is_loaded(ref)
        if loaded is None or self.loader.is_leaving(ref):
            return Room.ALONE
        if context_length is not None and self._falls_short(ref, loaded, context_length):
            return Room.NONE if line.in_flight else Room.ALONE
        if loaded.is_in_background and not line.in_flight and not self._is_machine_busy():
            return Room.ALONE  # it is started anew with all its threads
        return Room.READY if loaded.slots is None or line.in_flight < loaded.slots else Room.NONE

    async def bring_in(self, ref: ModelRef, ticket: Ticket, *, is_doubtful: bool) -> None:
        """Have the model loaded, with enough context. What is about to be brought back comes as it was."""
        assert self.loader is not None
        slot = self._fleet.slot(ref.provider)
        wanted = ticket.context_length
        is_background = slot.demand(ref.model) is Demand.CPU and self._is_machine_busy()
        request = msgspec.structs.replace(self._request_for(ref), is_in_background=is_background)
        is_free = request.context_length is None and request.ttl_s is None
        if wanted is not None and is_free:
            if ref in self.loader.loading:  # others have it loaded: perhaps with enough
                await self.loader.ensure(slot, request, client=ticket.client)
            loaded = self._fleet.is_loaded(ref)
            if loaded is None or self._falls_short(ref, loaded, wanted):
                request = msgspec.structs.replace(request, context_length=wanted)
        loaded = await self.loader.ensure(slot, request, client=ticket.client, is_doubtful=is_doubtful)
        if not loaded.needs_gpu and not loaded.size_bytes and self._fleet.is_loaded(ref) is None:
            self._elsewhere.add(ref)  # a cloud model of Ollama's: ready, and never in memory here
        given = loaded.context_length
        if wanted is not None and is_free and given is not None and given < wanted:
            self._most_context[ref] = given

    def _falls_short(self, ref: ModelRef, loaded: LoadedModel, context_length: int) -> bool:
        given = loaded.context_length
        return given is not None and given < context_length and self._most_context.get(ref) != given
