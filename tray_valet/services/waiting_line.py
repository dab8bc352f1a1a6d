"""The waiting line of one model: requests that wait for a place, and those that have one.

Those that wait at the gate stand in no line, but are counted here: one limit is for both together.

Decides: nothing by itself; who goes next is `core.queueing`'s rule, whether there is room the dispatcher's.
Must not: load, look at a provider or know routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from tray_valet.core.config import RouterSettings
from tray_valet.core.errors import QueueFull, TimedOut, ValetError
from tray_valet.core.models import ModelRef
from tray_valet.core.ports import Clock
from tray_valet.core.queueing import Line, Ticket

_GUESS_S = 5.0  # how long an answer takes, before any was seen
_SMOOTHING = 0.2
_LONGEST_RETRY_S = 300.0


class Room(Enum):
    """What the next request may do."""

    NONE = auto()  # wait
    READY = auto()  # go to the model as it is
    ALONE = auto()  # bring the model in (or in again); everybody else waits for that


_LOOK_AGAIN = False
_Answer = ValetError | bool  # a turn, or to look again elsewhere, or why the model cannot be had


class WaitingLine:
    """Everything is on the loop thread. `room(line, context_length)` says whether there is room."""

    def __init__(
        self,
        ref: ModelRef,
        clock: Clock,
        settings: Callable[[], RouterSettings],
        room: Callable[[WaitingLine, int | None], Room],
    ) -> None:
        self.ref = ref
        self._clock = clock
        self._settings = settings
        self._room = room
        self._line = Line()
        self._calls: dict[Ticket, asyncio.Future[_Answer]] = {}
        self._loner: Ticket | None = None  # who brings the model in now
        self._answer_s = _GUESS_S  # how long a turn takes, smoothed
        self.at_gate = 0  # who waits for the end of a pause, to come here then
        self.admitted_total = 0
        self.finished_total = 0
        self.rejected_total = 0

    @property
    def waiting(self) -> int:
        return self._line.waiting

    @property
    def in_flight(self) -> int:
        """Turns that were given, also those that still bring the model in."""
        return self._line.in_flight

    @property
    def is_idle(self) -> bool:
        return not self._line.in_flight and not self._line.waiting and not self.at_gate

    def take_ready(self, client: str, context_length: int | None) -> bool:
        """Take a turn if the model is ready, has room and nobody waits; say whether it was so."""
        line = self._line
        if self._loner is not None or line.waiting or self._room(self, context_length) is not Room.READY:
            return False
        line.begin_at_once(client)
        return True

    async def take(self, ticket: Ticket, timeout_s: float, *, is_let_in: bool = False) -> Room | None:
        """Wait for a turn, up to `timeout_s`. READY and ALONE: it is yours, give it back with `end`.

        `is_let_in`: it was counted when it came, at the gate or here, and is not refused for the length now.
        None: things have changed, look again where to go. Raises QueueFull, TimedOut, or why the model
        for which all waited could not be had.
        """
        if not self._line.waiting and (room := self._free(ticket)) is not Room.NONE:
            self._line.begin_at_once(ticket.client)
            self._loner = ticket if room is Room.ALONE else None
            return room
        if not is_let_in:
            self.check_length()
        call: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._calls[ticket] = call
        self._line.join(ticket)
        self.advance()  # it may go before one that waits until it is alone
        try:
            async with asyncio.timeout(timeout_s):
                answer = await call
        except BaseException as error:
            self._forget(ticket, call)
            if isinstance(error, TimeoutError):
                self.rejected_total += 1
                raise self._timed_out() from None
            raise
        if isinstance(answer, ValetError):
            raise answer.with_traceback(None)  # all who waited get the same one: it must not grow with each
        if answer is _LOOK_AGAIN:
            return None
        return Room.ALONE if self._loner is ticket else Room.READY

    def check_length(self) -> None:
        """Raises QueueFull where as many wait as may, at the gate and in the line together."""
        waiting = self._line.waiting + self.at_gate
        if waiting >= self._settings().max_queue_size_per_model:
            self.rejected_total += 1
            ahead_s = self._answer_s * waiting / max(1, self._line.in_flight)
            raise QueueFull(
                f"{waiting} requests wait for {self.ref} already.",
                retry_after_s=min(_LONGEST_RETRY_S, max(1.0, ahead_s)),
                remedy="Ask again later, or raise router.max_queue_size_per_model.",
            )

    def settle(self) -> None:
        """The model is in: others may go to it too."""
        self._loner = None
        self.advance()

    def end(self, client: str, *, was_alone: bool = False, took_s: float | None = None) -> None:
        """Give a turn back. `was_alone`: it was ALONE and not settled. `took_s`: how long an answer took,
        where there was one."""
        self._line.end(client)
        if took_s is not None:
            self._answer_s += _SMOOTHING * (took_s - self._answer_s)
            self.finished_total += 1
        if was_alone:
            self._loner = None
        self.advance()

    def advance(self) -> None:
        """Give out the turns that there is room for now."""
        if not self._line.waiting:
            return
        now_s, ageing_s = self._clock.monotonic_s(), float(self._settings().priority_ageing_seconds)
        while (ticket := self._line.first(now_s, ageing_s)) is not None:
            if self._calls[ticket].done():  # its client has left, and its task has not run yet
                self._remove(ticket)
                continue
            room = self._free(ticket)
            if room is Room.NONE:
                return
            self._line.begin(ticket, now_s, ageing_s)
            if room is Room.ALONE:
                self._loner = ticket
            self._calls.pop(ticket).set_result(True)

    def dismiss(self, why: ValetError | None = None) -> None:
        """Send all who wait away: with an error, or to look again where to go."""
        for ticket in self._line.tickets():
            call = self._remove(ticket)
            if not call.done():
                call.set_result(_LOOK_AGAIN if why is None else why)

    # -- inside --------------------------------------------------------------------------------------

    def _free(self, ticket: Ticket) -> Room:
        return Room.NONE if self._loner is not None else self._room(self, ticket.context_length)

    def _remove(self, ticket: Ticket) -> asyncio.Future[_Answer]:
        self._line.leave(ticket)
        return self._calls.pop(ticket)

    def _forget(self, ticket: Ticket, call: asyncio.Future[_Answer]) -> None:
        """Take one out that waits no longer; a turn that was given in that very moment goes on."""
        if ticket in self._calls:
            self._remove(ticket)
            self.advance()  # it may have been the one that held up others
        elif call.done() and not call.cancelled() and call.result() is True:
            self.end(ticket.client, was_alone=self._loner is ticket)

    def _timed_out(self) -> TimedOut:
        timeout_s = self._settings().queue_timeout_seconds
        return TimedOut(
            f"{self.ref} had no place for this request within {timeout_s:g} seconds.",
            remedy="Ask again later, or raise router.queue_timeout_seconds.",
        )
