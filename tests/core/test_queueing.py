"""Who goes next: priority, ageing, fairness between clients, and the order of arrival."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from tray_valet.core.config_providers import Priority
from tray_valet.core.queueing import Line, Ticket, level_of

HIGH, NORMAL, LOW = Priority.HIGH, Priority.NORMAL, Priority.LOW
AGEING_S = 30.0


class Queue:
    """A line with tickets made for it, one place each time."""

    def __init__(self) -> None:
        self.line = Line()
        self._numbers = itertools.count(1)

    def join(self, priority: Priority = NORMAL, client: str = "", since_s: float = 0.0) -> Ticket:
        ticket = Ticket(number=next(self._numbers), since_s=since_s, client=client, priority=priority)
        self.line.join(ticket)
        return ticket

    def serve(self, now_s: float = 0.0, ageing_s: float = AGEING_S, *, is_over: bool = True) -> Ticket | None:
        ticket = self.line.first(now_s, ageing_s)
        if ticket is not None:
            self.line.begin(ticket, now_s, ageing_s)
            if is_over:
                self.line.end(ticket.client)
        return ticket


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.mark.parametrize(
    ("priority", "waited_s", "level"),
    [
        (HIGH, 0.0, 0),
        (HIGH, 1000.0, 0),
        (NORMAL, 0.0, 1),
        (NORMAL, 29.9, 1),
        (NORMAL, 30.0, 0),
        (NORMAL, 900.0, 0),
        (LOW, 0.0, 2),
        (LOW, 30.0, 1),
        (LOW, 59.9, 1),
        (LOW, 60.0, 0),
    ],
)
def test_a_level_gets_better_with_every_ageing_time(priority: Priority, waited_s: float, level: int) -> None:
    ticket = Ticket(number=1, since_s=100.0, priority=priority)
    assert level_of(ticket, 100.0 + waited_s, AGEING_S) == level


def test_without_ageing_time_priority_means_nothing() -> None:
    assert {level_of(Ticket(number=1, since_s=0.0, priority=p), 0.0, 0.0) for p in Priority} == {0}


def test_better_priorities_go_first_and_equals_by_arrival(queue: Queue) -> None:
    tickets = [queue.join(p) for p in (LOW, NORMAL, HIGH, LOW, NORMAL, HIGH)]
    order = [queue.serve() for _ in tickets]
    assert order == [tickets[i] for i in (2, 5, 1, 4, 0, 3)]
    assert queue.serve() is None


@pytest.mark.parametrize("backlog", [0, 10, 500])
def test_r9_low_goes_after_twice_the_ageing_behind_any_flood_of_high(queue: Queue, backlog: int) -> None:
    for _ in range(backlog):
        queue.join(HIGH)
    low = queue.join(LOW)
    served_s = None
    for now_s in range(200):  # one is served each second, and another high one arrives
        queue.join(HIGH, since_s=float(now_s))
        if queue.serve(float(now_s)) is low:
            served_s = now_s
            break
    assert served_s == (2 * AGEING_S)


def test_a_flood_of_aged_low_ones_leaves_high_ones_every_second_place(queue: Queue) -> None:
    for _ in range(100):
        queue.join(LOW)
    high = [queue.join(HIGH, since_s=70.0) for _ in range(3)]
    order = [queue.serve(70.0) for _ in range(6)]
    assert [ticket in high for ticket in order] == [False, True, False, True, False, True]


def test_clients_take_turns_however_much_one_of_them_asks(queue: Queue) -> None:
    greedy = [queue.join(client="greedy") for _ in range(100)]
    modest = [queue.join(client="modest") for _ in range(2)]
    order = [queue.serve() for _ in range(4)]
    assert order == [greedy[0], modest[0], greedy[1], modest[1]]


def test_the_client_with_the_fewest_in_flight_goes_first(queue: Queue) -> None:
    for _ in range(3):
        queue.line.begin_at_once("busy")
    busy, idle = queue.join(client="busy"), queue.join(client="idle")
    assert queue.serve(is_over=False) is idle
    other = queue.join(client="idle")
    assert queue.serve(is_over=False) is other, "it has one in flight, the busy one has three"
    assert queue.serve() is busy


def test_a_ticket_that_comes_back_keeps_its_place(queue: Queue) -> None:
    first, second = queue.join(), queue.join()
    queue.line.leave(first)
    queue.line.leave(first)
    assert queue.line.waiting == 1
    queue.line.join(first)
    assert queue.line.tickets() == (first, second)
    assert queue.serve() is first


def test_nothing_is_kept_of_a_line_that_is_over() -> None:
    line = Line()
    for number in range(1000):
        line.begin_at_once(f"client {number}")
        line.end(f"client {number}")
    assert (line.in_flight, line.waiting) == (0, 0)
    assert not any(value for value in vars(line).values() if isinstance(value, dict))


def test_any_order_of_joining_leaving_and_serving_loses_nobody(queue: Queue) -> None:
    seed = random.Random().randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    waiting: list[Ticket] = []
    for now_s in range(5000):
        if chance.random() < 0.5:
            waiting.append(queue.join(chance.choice(list(Priority)), chance.choice("abc"), float(now_s)))
        elif waiting and chance.random() < 0.3:
            queue.line.leave(waiting.pop(chance.randrange(len(waiting))))
        elif (ticket := queue.serve(float(now_s))) is not None:
            waiting.remove(ticket)
        assert queue.line.waiting == len(waiting)
    assert queue.line.tickets() == tuple(waiting)


def test_thousands_that_wait_are_served_in_no_time(queue: Queue) -> None:
    for number in range(5000):
        queue.join(client=f"client {number % 20}")
    begun_s = time.perf_counter()
    while queue.serve() is not None:
        pass
    assert time.perf_counter() - begun_s < 5
