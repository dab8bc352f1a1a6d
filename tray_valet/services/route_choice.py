"""The choice among a route's candidates: where a request goes now, or that it waits at the gate.

Decides: when a request has waited long enough for the end of a pause, and at which model it counts meanwhile;
who is chosen is `core.routing`'s rule, how many may wait the line's.
Must not: queue at a model, load, or decide that there is a pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tray_valet.core.errors import Paused, QueueFull
from tray_valet.core.models import Demand, ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.routing import Candidate, Choice, Plan, Standing, choose, reason_for
from tray_valet.services.admission import Attempt
from tray_valet.services.fleet import Fleet
from tray_valet.services.leases import ActiveLease
from tray_valet.services.route_book import RouteBook, Ways
from tray_valet.services.waiting_line import WaitingLine

_GATE_LOOK_S = 1.0  # one hold of several may end without a change of state


class RouteChoice:
    """Owns who waits at the gate. `closed_by(demand)` is the gate: the refusal, or None when open.

    `line_of(ref)` is a model's line, where those who wait at the gate are counted. `forget_line(line)` is
    called when that line has one less to count.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        routes: RouteBook,
        closed_by: Callable[[Demand], Paused | None],
        line_of: Callable[[ModelRef], WaitingLine],
        forget_line: Callable[[WaitingLine], None],
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._routes = routes
        self._closed_by = closed_by
        self._line_of = line_of
        self._forget_line = forget_line
        self._gate_calls: set[asyncio.Future[None]] = set()

    def gate_changed(self) -> None:
        """Let requests look again that wait at the gate."""
        for call in tuple(self._gate_calls):
            if not call.done():
                call.set_result(None)

    async def candidate(self, attempt: Attempt) -> tuple[Candidate, Plan]:
        """The candidate to go to, and the plan that it is from; waits while all are behind the gate.

        Raises Paused when it has waited enough, QueueFull when too many wait there already, or why there is
        none: UnknownModel, NotSupported, or how the last candidate failed.
        """
        while True:
            ways = await self._routes.ask(attempt.wish.model)
            choice = self._choose(attempt, ways)
            if choice.candidate is not None:
                return choice.candidate, ways.plan
            assert choice.held is not None
            await self._wait_at_gate(attempt, choice.held.ref)

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

    def _choose(self, attempt: Attempt, ways: Ways) -> Choice:
        """The candidate to go to, or the one that is held, to wait for. Raises why there is none."""
        path = attempt.wish.path
        candidates = ways.candidates(self._routes.load_of)
        standings = [self._routes.standing(c, path, attempt.failed) for c in candidates]
        choice = choose(candidates, standings, ways.plan.when_paused, attempt.awaited)
        if chosen := choice.candidate:
            attempt.reason = reason_for(
                chosen, candidates, standings, attempt.failed, is_alias=ways.plan.is_alias, path=path
            )
            return choice
        if choice.held is not None:
            now_s = self._clock.monotonic_s()
            if attempt.gate_ends_s is None:
                attempt.gate_ends_s = now_s + ways.plan.wait_s
            if not choice.may_wait or now_s >= attempt.gate_ends_s:
                raise self._refusal(choice.held)
            self._let_in(attempt, choice.held.ref)
            closed = (c.ref for c, s in zip(candidates, standings, strict=True) if s is Standing.CLOSED)
            attempt.awaited |= frozenset(closed)
            attempt.let_in |= attempt.awaited  # whichever of them opens first
            return choice
        if attempt.failed:
            raise next(reversed(attempt.failed.values()))
        raise self._routes.not_served(path, candidates)

    def _refusal(self, held: Candidate) -> Paused:
        slot = self._fleet.slots[held.ref.provider]
        refusal = self._closed_by(slot.demand(held.ref.model))
        assert refusal is not None
        return refusal

    def _let_in(self, attempt: Attempt, ref: ModelRef) -> None:
        """Let a request wait at the gate. Raises QueueFull for one that has just come where too many do."""
        if attempt.awaited or ref in attempt.let_in:
            return
        line = self._line_of(ref)
        try:
            line.check_length()
        except QueueFull:
            self._forget_line(line)
            raise

    async def _wait_at_gate(self, attempt: Attempt, ref: ModelRef) -> None:
        now_s = self._clock.monotonic_s()
        assert attempt.gate_ends_s is not None
        call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gate_calls.add(call)
        line = self._line_of(ref)
        line.at_gate += 1
        try:
            async with asyncio.timeout(min(_GATE_LOOK_S, attempt.gate_ends_s - now_s)):
                await call
        except TimeoutError:
            pass
        finally:
            self._gate_calls.discard(call)
            line.at_gate -= 1
            self._forget_line(line)
            attempt.gated_s += self._clock.monotonic_s() - now_s
