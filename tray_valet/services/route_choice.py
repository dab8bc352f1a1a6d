"""The choice among a route's candidates: where a request goes now, or that it waits at the gate.

Decides: when a request has waited long enough for the end of a pause; who is chosen is `core.routing`'s rule.
Must not: queue at a model, load, or decide that there is a pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tray_valet.core.errors import Paused
from tray_valet.core.models import Demand
from tray_valet.core.ports import Clock
from tray_valet.core.routing import Candidate, Plan, Standing, choose, reason_for
from tray_valet.services.admission import Attempt
from tray_valet.services.fleet import Fleet
from tray_valet.services.leases import ActiveLease
from tray_valet.services.route_book import RouteBook, Ways

_GATE_LOOK_S = 1.0  # one hold of several may end without a change of state


class RouteChoice:
    """Owns who waits at the gate. `closed_by(demand)` is the gate: the refusal, or None when open."""

    def __init__(
        self, fleet: Fleet, clock: Clock, routes: RouteBook, closed_by: Callable[[Demand], Paused | None]
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._routes = routes
        self._closed_by = closed_by
        self._gate_calls: set[asyncio.Future[None]] = set()

    def gate_changed(self) -> None:
        """Let requests look again that wait at the gate."""
        for call in tuple(self._gate_calls):
            if not call.done():
                call.set_result(None)

    async def candidate(self, attempt: Attempt) -> tuple[Candidate, Plan]:
        """The candidate to go to, and the plan that it is from; waits while all are behind the gate.

        Raises Paused when it has waited enough, or why there is none: UnknownModel, NotSupported, or how the
        last candidate failed.
        """
        while True:
            ways = await self._routes.ask(attempt.wish.model)
            if candidate := self._choose(attempt, ways):
                return candidate, ways.plan
            await self._wait_at_gate(attempt)

    def has_next(self, lease: ActiveLease) -> bool:
        """Whether another candidate could be asked at this moment."""
        ways = self._routes.now(lease.wish.model)
        if ways is None or (ways.fixed is not None and len(ways.fixed) == 1):
            return False
        path, failed = lease.wish.path, {lease.ref, *lease.failed}
        return any(
            self._routes.standing(candidate, path, failed) is Standing.OPEN
            for candidate in ways.candidates(self._routes.load_of)
        )

    def _choose(self, attempt: Attempt, ways: Ways) -> Candidate | None:
        """The candidate to go to; None: wait at the gate. Raises why there is none."""
        path = attempt.wish.path
        candidates = ways.candidates(self._routes.load_of)
        standings = [self._routes.standing(c, path, attempt.failed) for c in candidates]
        choice = choose(candidates, standings, ways.plan.when_paused, attempt.awaited)
        if chosen := choice.candidate:
            attempt.reason = reason_for(
                chosen, candidates, standings, attempt.failed, is_alias=ways.plan.is_alias, path=path
            )
            return chosen
        if choice.held is not None:
            now_s = self._clock.monotonic_s()
            if attempt.gate_ends_s is None:
                attempt.gate_ends_s = now_s + ways.plan.wait_s
            if not choice.may_wait or now_s >= attempt.gate_ends_s:
                raise self._refusal(choice.held)
            closed = (c.ref for c, s in zip(candidates, standings, strict=True) if s is Standing.CLOSED)
            attempt.awaited |= frozenset(closed)
            return None
        if attempt.failed:
            raise next(reversed(attempt.failed.values()))
        raise self._routes.not_served(path, candidates)

    def _refusal(self, held: Candidate) -> Paused:
        slot = self._fleet.slots[held.ref.provider]
        refusal = self._closed_by(slot.demand(held.ref.model))
        assert refusal is not None
        return refusal

    async def _wait_at_gate(self, attempt: Attempt) -> None:
        now_s = self._clock.monotonic_s()
        assert attempt.gate_ends_s is not None
        call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gate_calls.add(call)
        try:
            async with asyncio.timeout(min(_GATE_LOOK_S, attempt.gate_ends_s - now_s)):
                await call
        except TimeoutError:
            pass
        finally:
            self._gate_calls.discard(call)
            attempt.gated_s += self._clock.monotonic_s() - now_s
