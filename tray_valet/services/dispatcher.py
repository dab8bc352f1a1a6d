"""The dispatcher: admits requests at the gate, gives them a ready model, and ends them for a pause.

Decides: whether a request may go to a model now, and which candidate of an alias it goes to.
Must not: move bytes (`web/router_proxy.py` does) or decide that there is a pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from tray_valet.core.commands import NOTHING_FAILED, Overrides, Wish
from tray_valet.core.config import Settings
from tray_valet.core.config_providers import WhenPaused
from tray_valet.core.errors import NotFound, Paused, UnknownModel, ValetError
from tray_valet.core.models import Demand, LoadRequest, ModelRef, Upstream
from tray_valet.core.ports import Clock
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.loader import Loader


class ActiveLease:
    """A request in flight on a ready model; revoked when the model must go."""

    def __init__(self, ref: ModelRef, upstream: Upstream, reason: str, client: str) -> None:
        self.ref = ref
        self.upstream = upstream
        self.overrides: Overrides | None = None
        self.reason = reason
        self.client = client
        self.has_next = False
        self.queue_s = 0.0
        self.load_s = 0.0
        self.revoked_by: ValetError | None = None
        self._on_revoked: Callable[[ValetError], None] | None = None

    def when_revoked(self, call: Callable[[ValetError], None]) -> None:
        self._on_revoked = call
        if self.revoked_by is not None:
            call(self.revoked_by)

    def revoke(self, why: ValetError) -> None:
        """Tell the request that it must end now."""
        if self.revoked_by is None:
            self.revoked_by = why
            if self._on_revoked is not None:
                self._on_revoked(why)


class Dispatcher:
    """Owns what is in flight.

    `closed_by(demand)` is the gate: the refusal, or None when open. `request_for(ref)` is how a model
    is to be loaded when it must be: a model that is about to be brought back, as it was.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        settings: Callable[[], Settings],
        closed_by: Callable[[Demand], Paused | None],
        request_for: Callable[[ModelRef], LoadRequest],
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._settings = settings
        self._closed_by = closed_by
        self._request_for = request_for
        self._leases: dict[ModelRef, set[ActiveLease]] = {}
        self._changed = asyncio.Event()
        self.loader: Loader | None = None  # handed over by the composition root: they know each other

    # -- in flight -----------------------------------------------------------------------------------

    def in_flight(self, ref: ModelRef) -> int:
        """How many requests run on a model now."""
        return len(self._leases.get(ref, ()))

    def leases_on(self, ref: ModelRef) -> tuple[ActiveLease, ...]:
        """The requests that run on a model now."""
        return tuple(self._leases.get(ref, ()))

    @property
    def in_flight_total(self) -> int:
        return sum(map(len, self._leases.values()))

    async def wait_idle(self, ref: ModelRef, timeout_s: float) -> bool:
        """Wait until no request runs on a model; say whether that came true in time."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        while self.in_flight(ref):
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return False
        return True

    async def revoke(self, ref: ModelRef, why: ValetError, timeout_s: float = 1.0) -> int:
        """End every request on a model; returns their number once their sockets are cut (or after
        `timeout_s`)."""
        leases = list(self._leases.get(ref, ()))
        for lease in leases:
            lease.revoke(why)
        await self.wait_idle(ref, timeout_s)
        return len(leases)

    def gate_changed(self) -> None:
        """Let requests that wait at the gate look again."""
        self._changed.set()

    # -- admission -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def admit(
        self, wish: Wish, failed: Mapping[ModelRef, ValetError] = NOTHING_FAILED
    ) -> AsyncIterator[ActiveLease]:
        """Admit a request for a model or alias, or raise why not; see `core.commands.Valet.admit`."""
        client = wish.client
        slot, name, reason = await self._choose(wish.model)
        ref = ModelRef(slot.name, name)
        assert self.loader is not None
        await self.loader.ensure(slot, self._request_for(ref), client=client)
        # A pause may have begun between the load's end and this line.
        if refusal := self._closed_by(slot.demand(name)):
            raise refusal
        lease = ActiveLease(ref, slot.provider.upstream(name), reason, client)
        self._leases.setdefault(ref, set()).add(lease)
        try:
            yield lease
        finally:
            leases = self._leases[ref]
            leases.discard(lease)
            if not leases:
                del self._leases[ref]
            self.loader.touch(ref)
            self._changed.set()

    async def _choose(self, model: str) -> tuple[Slot, str, str]:
        route = self._settings().routes.get(model)
        if route is None:
            slot, name = await self._fleet.resolve(model)
            when_paused = self._settings().router.when_paused
            wait_s = 60.0 if when_paused is WhenPaused.WAIT else 0.0
            await self._pass_gate([(slot, name)], wait_s)
            return slot, name, "model"
        targets = await self._targets(model)
        wait_s = float(route.wait_seconds) if route.when_paused is WhenPaused.WAIT else 0.0
        first_only = route.when_paused is WhenPaused.REFUSE
        index = await self._pass_gate(targets[:1] if first_only else targets, wait_s)
        slot, name = targets[index]
        return slot, name, "alias" if index == 0 else "fallback: paused"

    async def _targets(self, alias: str) -> list[tuple[Slot, str]]:
        targets: list[tuple[Slot, str]] = []
        problem: ValetError = UnknownModel(
            f"The alias “{alias}” has no candidate that exists.", param="model"
        )
        for candidate in self._settings().routes[alias].candidates:
            try:
                targets.append(await self._fleet.resolve(candidate.model, candidate.provider))
            except NotFound:
                continue  # the route names a provider that is no longer there
            except ValetError as error:
                problem = error
        if not targets:
            raise problem
        return targets

    async def _pass_gate(self, targets: list[tuple[Slot, str]], wait_s: float) -> int:
        """The index of the first target that the gate lets through; waits up to `wait_s` for one."""
        deadline_s = self._clock.monotonic_s() + wait_s
        while True:
            for index, (slot, name) in enumerate(targets):
                if self._closed_by(slot.demand(name)) is None:
                    return index
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                slot, name = targets[0]
                refusal = self._closed_by(slot.demand(name))
                assert refusal is not None
                raise refusal
            self._changed.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
