"""The dispatcher: gives each request a ready model, one candidate of its route after another.

Decides: when a request waits for a place or a load, and when it has waited enough; where it goes is
`route_choice.py`'s, the rule of the line `core.queueing`'s. Must not: move bytes (`web/` does) or decide that
there is a pause.

A request goes through three doors: the gate (is there a pause?), the line of its model (is there a place?)
and the model itself (is it loaded, with enough context?). One that finds all three open, as most do, passes
without waiting once. At each door that stays closed it looks again where else it could go.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping

from tray_valet.core.commands import NOTHING_FAILED, QueueState, Wish
from tray_valet.core.config import Settings
from tray_valet.core.dialects import NEEDS_NO_MODEL
from tray_valet.core.errors import Paused, TimedOut, ValetError
from tray_valet.core.models import Demand, LoadRequest, ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.queueing import Ticket
from tray_valet.core.routing import Candidate, Plan
from tray_valet.services.admission import Admission, Attempt, Late, context_of
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.leases import ActiveLease, Leases
from tray_valet.services.loader import Loader
from tray_valet.services.readiness import Readiness
from tray_valet.services.route_book import RouteBook
from tray_valet.services.route_choice import RouteChoice
from tray_valet.services.waiting_line import Room, WaitingLine


class Dispatcher:
    """Owns the lines, and writes down in `leases` what is in flight.

    `closed_by(demand)` is the gate: the refusal, or None when open. `request_for(ref)` is how a model is to
    be loaded when it must be: a model that is about to be brought back, as it was. `is_machine_busy` tells
    whether something else has the machine, so that what is loaded on the CPU stays in the background.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        leases: Leases,
        settings: Callable[[], Settings],
        closed_by: Callable[[Demand], Paused | None],
        request_for: Callable[[ModelRef], LoadRequest],
        is_machine_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._settings = settings
        self._closed_by = closed_by
        self._leases = leases
        self._lines: dict[ModelRef, WaitingLine] = {}
        self._numbers = itertools.count(1)
        self._routes = RouteBook(fleet, settings, closed_by, self.busy)
        self._readiness = Readiness(fleet, request_for, is_machine_busy)
        self._choice = RouteChoice(fleet, clock, self._routes, closed_by, self._line, self._forget_line)

    @property
    def loader(self) -> Loader | None:
        """Handed over by the composition root: they know each other."""
        return self._readiness.loader

    @loader.setter
    def loader(self, loader: Loader) -> None:
        self._readiness.loader = loader

    # -- lines ---------------------------------------------------------------------------------------

    def busy(self, ref: ModelRef) -> int:
        """How many requests run on a model now, or wait in its line. Not who waits at the gate: that one
        may yet go to another, and what is closed is not busy."""
        line = self._lines.get(ref)
        return line.in_flight + line.waiting if line else 0

    def is_wanted(self, ref: ModelRef) -> bool:
        """Whether requests wait in a model's line, or bring it in."""
        return self.busy(ref) > self._leases.count(ref)

    def queues(self) -> tuple[QueueState, ...]:
        """The lines of the models that were asked for. Who brings a model in counts as waiting, and so does
        who waits for it at the gate."""
        return tuple(
            QueueState(
                ref=ref,
                waiting=line.at_gate + line.waiting + line.in_flight - (running := self._leases.count(ref)),
                in_flight=running,
                slots=loaded.slots if (loaded := self._fleet.is_loaded(ref)) else None,
                admitted_total=line.admitted_total,
                finished_total=line.finished_total,
                rejected_total=line.rejected_total,
            )
            for ref, line in self._lines.items()
        )

    # -- what others tell ----------------------------------------------------------------------------

    def gate_changed(self) -> None:
        """Let requests look again that wait at the gate, or in a line that the gate now closes."""
        self._choice.gate_changed()
        for ref, line in tuple(self._lines.items()):
            slot = self._fleet.slots.get(ref.provider)
            if slot is not None and self._closed_by(slot.demand(ref.model)) is not None:
                line.dismiss()

    def fleet_changed(self) -> None:
        """Let requests go on for which there is room now; forget lines whose models are gone."""
        for ref, line in tuple(self._lines.items()):
            if ref.provider not in self._fleet.slots:
                line.dismiss()
            line.advance()
            self._forget_line(line)

    # -- admission -----------------------------------------------------------------------------------

    def admit(self, wish: Wish, failed: Mapping[ModelRef, ValetError] = NOTHING_FAILED) -> Admission:
        """Admit a request for a model or alias, or raise why not; see `core.commands.Valet.admit`."""
        return Admission(self, wish, failed)

    async def locate(self, name: str) -> tuple[Slot, str]:
        """The provider and model that a name means first of all. Raises UnknownModel, ProviderUnreachable."""
        ways = await self._routes.ask(name)
        ref = ways.candidates(self._routes.load_of)[0].ref
        return self._fleet.slots[ref.provider], ref.model

    def admit_now(self, wish: Wish) -> ActiveLease | None:
        """A lease if nothing is in the way: the first candidate is open, ready and has room. Else None, and
        nothing has happened."""
        door = self._routes.door(wish.model, wish.path)
        if door is None or self._closed_by(door.demand) is not None:
            return None
        candidate = door.candidate
        line = self._lines.get(candidate.ref)
        if line is None or not line.take_ready(wish.client, context_of(wish, candidate)):
            return None
        lease = self._lease_at(door.slot, wish, candidate)
        if lease is None:
            line.end(wish.client)
            return None
        lease.reason = door.reason
        line.admitted_total += 1
        return lease

    async def admit_later(self, wish: Wish, failed: Mapping[ModelRef, ValetError]) -> ActiveLease:
        """A lease as soon as there is one for this request, or why there will be none."""
        attempt = Attempt(wish, failed, next(self._numbers), self._clock.monotonic_s())
        while True:
            candidate, plan = await self._choice.candidate(attempt)
            try:
                if wish.path in NEEDS_NO_MODEL:
                    lease: ActiveLease | None = self._aside(wish, candidate)
                else:
                    lease = await self._enter(attempt, candidate, plan)
            except Paused:
                await asyncio.sleep(0)  # the route says what a pause means
                continue
            except Late as late:
                raise late.error from None
            except ValetError as error:
                attempt.failed[candidate.ref] = error
                continue
            if lease is not None:
                lease.reason = attempt.reason
                lease.queue_s, lease.load_s = attempt.queued_s + attempt.gated_s, attempt.load_s
                lease.failed = attempt.failed
                return lease

    def has_next(self, lease: ActiveLease) -> bool:
        """Whether another candidate of a request's route could be asked at this moment."""
        return self._choice.has_next(lease)

    def finish(self, lease: ActiveLease) -> None:
        """A request is over; its lease says so once (`ActiveLease.end`)."""
        if not lease.is_counted:
            return
        self._leases.remove(lease)
        assert self.loader is not None
        self.loader.touch(lease.ref, lease.keep_alive_s)
        line = self._lines[lease.ref]
        line.end(lease.client, took_s=self._clock.monotonic_s() - lease.begun_s)

    # -- to the model --------------------------------------------------------------------------------

    async def _enter(self, attempt: Attempt, candidate: Candidate, plan: Plan) -> ActiveLease | None:
        """A lease on this candidate, once it has a place and the model is ready; None: look again.

        Raises Paused, Late, or why this candidate cannot serve.
        """
        line = self._line(candidate.ref)
        ticket = attempt.ticket(candidate, plan)
        try:
            room = await self._turn(attempt, line, ticket)
            if room is None:
                return None
            lease = await self._with_turn(attempt, candidate, line, ticket, room)
        except ValetError:
            self._forget_line(line)
            raise
        line.admitted_total += 1
        return lease

    async def _turn(self, attempt: Attempt, line: WaitingLine, ticket: Ticket) -> Room | None:
        begun_s = self._clock.monotonic_s()
        left_s = float(self._settings().router.queue_timeout_seconds) - attempt.queued_s
        try:
            room = await line.take(ticket, max(0.0, left_s), is_let_in=line.ref in attempt.let_in)
            attempt.let_in.add(line.ref)
            return room
        except TimedOut as error:
            raise Late(error) from error
        finally:
            attempt.queued_s += self._clock.monotonic_s() - begun_s

    async def _with_turn(
        self, attempt: Attempt, candidate: Candidate, line: WaitingLine, ticket: Ticket, room: Room
    ) -> ActiveLease:
        is_alone = room is Room.ALONE
        try:
            lease = None if is_alone else self._lease(attempt.wish, candidate)
            if lease is None:
                begun_s = self._clock.monotonic_s()
                await self._readiness.bring_in(candidate.ref, ticket, is_doubtful=not is_alone)
                attempt.load_s += self._clock.monotonic_s() - begun_s
                lease = self._lease_or_raise(attempt.wish, candidate)
        except BaseException as error:
            if is_alone and isinstance(error, ValetError):
                # Those who waited for this very load are told the same, instead of trying it one by one.
                line.dismiss(None if isinstance(error, Paused) else error)
            line.end(ticket.client, was_alone=is_alone)
            raise
        if is_alone:
            line.settle()
        return lease

    def _lease(self, wish: Wish, candidate: Candidate) -> ActiveLease | None:
        """A lease on a model that is ready at this moment; None when it is not, after all.

        Raises Paused: a pause may have begun while the request waited.
        """
        ref = candidate.ref
        slot = self._fleet.slots.get(ref.provider)
        if slot is None:
            return None
        if refusal := self._closed_by(slot.demand(ref.model)):
            raise refusal
        return self._lease_at(slot, wish, candidate)

    def _lease_at(self, slot: Slot, wish: Wish, candidate: Candidate) -> ActiveLease | None:
        ref = candidate.ref
        try:
            upstream = slot.provider.upstream(ref.model)
        except ValetError:
            return None
        lease = ActiveLease(wish, candidate, upstream, begun_s=self._clock.monotonic_s(), keeper=self)
        if candidate.overrides is not None:
            lease.overrides = self._readiness.overrides(ref, candidate.overrides, upstream.kind)
        self._leases.add(lease)
        return lease

    def _aside(self, wish: Wish, candidate: Candidate) -> ActiveLease:
        """A lease for what needs no model: through no line, and nothing is loaded or pinned for it."""
        upstream = self._fleet.slot(candidate.ref.provider).provider.upstream(candidate.ref.model)
        lease = ActiveLease(wish, candidate, upstream, begun_s=self._clock.monotonic_s(), keeper=self)
        lease.is_counted = False
        return lease

    def _lease_or_raise(self, wish: Wish, candidate: Candidate) -> ActiveLease:
        lease = self._lease(wish, candidate)
        if lease is None:
            slot = self._fleet.slot(candidate.ref.provider)
            slot.provider.upstream(candidate.ref.model)  # raises why
            raise self._fleet.unknown(str(candidate.ref))
        return lease

    def _line(self, ref: ModelRef) -> WaitingLine:
        line = self._lines.get(ref)
        if line is None:
            line = self._lines[ref] = WaitingLine(
                ref, self._clock, lambda: self._settings().router, self._readiness.room
            )
        return line

    def _forget_line(self, line: WaitingLine) -> None:
        if line.is_idle and not self._fleet.knows(line.ref):
            self._lines.pop(line.ref, None)
            self._readiness.forget(line.ref)
