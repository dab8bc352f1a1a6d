"""Admissions: one request on its way to a lease, and the lease while it lasts.

Decides: nothing; it remembers what the request has tried and how long it has waited.
Must not: choose, wait or load (the dispatcher does).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

from tray_valet.core.commands import Wish
from tray_valet.core.errors import TimedOut, ValetError
from tray_valet.core.models import ModelRef
from tray_valet.core.queueing import Ticket
from tray_valet.core.routing import Candidate, Plan
from tray_valet.services.leases import ActiveLease


class Doorkeeper(Protocol):
    """Who admits: the dispatcher."""

    def admit_now(self, wish: Wish) -> ActiveLease | None: ...

    async def admit_later(self, wish: Wish, failed: Mapping[ModelRef, ValetError]) -> ActiveLease: ...


class Attempt:
    """One request on its way to a lease: what it has tried, and how long it has waited."""

    def __init__(self, wish: Wish, failed: Mapping[ModelRef, ValetError], number: int, now_s: float) -> None:
        self.wish = wish
        self.failed = dict(failed)
        self.number = number
        self.arrived_s = now_s
        self.queued_s = 0.0  # in lines
        self.gated_s = 0.0  # at the gate
        self.load_s = 0.0
        self.gate_ends_s: float | None = None  # when it has waited long enough for the end of a pause
        self.awaited: frozenset[ModelRef] = frozenset()
        self.let_in: set[ModelRef] = set()  # it was counted for these once: they refuse it for no length
        self.reason = ""

    def ticket(self, candidate: Candidate, plan: Plan) -> Ticket:
        """Its place in a model's line; it keeps its age wherever it goes."""
        return Ticket(
            number=self.number,
            since_s=self.arrived_s,
            client=self.wish.client,
            priority=self.wish.priority or plan.priority,
            context_length=context_of(self.wish, candidate),
        )


class Admission(AbstractAsyncContextManager[ActiveLease]):
    """What `admit` returns. By hand: a generator and a task's time-out would cost more than the rest."""

    __slots__ = ("_dispatcher", "_failed", "_lease", "_wish")

    def __init__(self, dispatcher: Doorkeeper, wish: Wish, failed: Mapping[ModelRef, ValetError]) -> None:
        self._dispatcher = dispatcher
        self._wish = wish
        self._failed = failed
        self._lease: ActiveLease | None = None

    async def __aenter__(self) -> ActiveLease:
        lease = None if self._failed else self._dispatcher.admit_now(self._wish)
        if lease is None:
            lease = await self._dispatcher.admit_later(self._wish, self._failed)
        self._lease = lease
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end()


class Late(Exception):  # it is no failure of the candidate
    """The request has waited long enough; no other candidate is asked."""

    def __init__(self, error: TimedOut) -> None:
        super().__init__(str(error))
        self.error = error


def context_of(wish: Wish, candidate: Candidate) -> int | None:
    """Tokens that the model must have for this request; the client's own word counts before the route's."""
    return wish.context_length or candidate.context_length
