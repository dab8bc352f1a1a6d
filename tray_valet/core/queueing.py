"""Queueing: who goes next of those that wait for one model.

Decides: the order by priority, ageing and fairness. Must not: wait, count places or know a clock; times come
in as monotonic seconds.

A ticket's level is its priority's, one better for every `ageing_s` that it has waited. The best level goes
first; within it those that have aged into it and those that belong there take turns, aged ones first: so a
low priority waits at most twice the ageing behind any flood of high ones, and high ones never stand behind a
flood of aged ones. Then the client with the fewest requests in flight goes, then the one that was served
longest ago; a client's own requests go in the order of their arrival.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import msgspec

from tray_valet.core.config_providers import Priority

_LEVELS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


class Ticket(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A place in the line. `number` grows with each arrival; `since_s` is the arrival."""

    number: int
    since_s: float
    client: str = ""
    priority: Priority = Priority.NORMAL
    context_length: int | None = None  # tokens that it needs; the line does not care


def level_of(ticket: Ticket, now_s: float, ageing_s: float) -> int:
    """How urgent a ticket is now; 0 is the most urgent."""
    base = _LEVELS[ticket.priority]
    if base == 0:
        return 0
    if ageing_s <= 0:
        return 0
    return max(0, base - int((now_s - ticket.since_s) / ageing_s))


class Line:
    """Those who wait, and what each client has in flight. Every call costs O(clients + log waiting)."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[Priority, str], list[Ticket]] = {}
        self._in_flight: dict[str, int] = {}
        self._served: dict[str, int] = {}  # client → the number of the turn it had last
        self._turns = 0
        self._was_aged_last = False
        self.waiting = 0
        self.in_flight = 0

    def join(self, ticket: Ticket) -> None:
        """Let a ticket wait; one that has waited before keeps its place by its number."""
        lane = self._lanes.setdefault((ticket.priority, ticket.client), [])
        insort(lane, ticket, key=_number)
        self.waiting += 1

    def leave(self, ticket: Ticket) -> None:
        """Take a ticket out that waits. Not there: fine."""
        key = (ticket.priority, ticket.client)
        lane = self._lanes.get(key, [])
        index = bisect_left(lane, ticket.number, key=_number)
        if index < len(lane) and lane[index] is ticket:
            del lane[index]
            self.waiting -= 1
            if not lane:
                del self._lanes[key]

    def first(self, now_s: float, ageing_s: float) -> Ticket | None:
        """Whose turn it is; None when nobody waits."""
        heads = [(level_of(lane[0], now_s, ageing_s), lane[0]) for lane in self._lanes.values()]
        if not heads:
            return None
        best = min(level for level, _ in heads)
        contenders = [ticket for level, ticket in heads if level == best]
        aged = [ticket for ticket in contenders if _LEVELS[ticket.priority] > best]
        prompt = [ticket for ticket in contenders if _LEVELS[ticket.priority] == best]
        is_aged_turn = bool(aged) and not (self._was_aged_last and prompt)
        return min(aged if is_aged_turn else prompt, key=self._rank)

    def begin(self, ticket: Ticket, now_s: float, ageing_s: float) -> None:
        """Give a waiting ticket its turn."""
        self._was_aged_last = level_of(ticket, now_s, ageing_s) < _LEVELS[ticket.priority]
        self.leave(ticket)
        self.begin_at_once(ticket.client)

    def begin_at_once(self, client: str) -> None:
        """Give a turn to one that need not wait."""
        self._turns += 1
        self._served[client] = self._turns
        self._in_flight[client] = self._in_flight.get(client, 0) + 1
        self.in_flight += 1

    def end(self, client: str) -> None:
        """A turn of this client is over."""
        self.in_flight -= 1
        left = self._in_flight[client] - 1
        if left:
            self._in_flight[client] = left
        else:
            del self._in_flight[client]
        if not self.in_flight and not self.waiting:
            self._served.clear()  # names of clients are not kept for ever

    def tickets(self) -> tuple[Ticket, ...]:
        """Those who wait, by arrival."""
        return tuple(sorted((t for lane in self._lanes.values() for t in lane), key=_number))

    def _rank(self, ticket: Ticket) -> tuple[int, int, int]:
        client = ticket.client
        return (self._in_flight.get(client, 0), self._served.get(client, 0), ticket.number)


def _number(ticket: Ticket) -> int:
    return ticket.number
