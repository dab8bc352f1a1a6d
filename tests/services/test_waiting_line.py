"""One model's line by itself: turns, the one that brings the model in, and those who leave."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from tray_valet.core.config import RouterSettings
from tray_valet.core.config_providers import Priority
from tray_valet.core.errors import LoadFailed, QueueFull, TimedOut
from tray_valet.core.models import ModelRef
from tray_valet.core.queueing import Ticket
from tray_valet.services.waiting_line import Room, WaitingLine

REF = ModelRef("local", "qwen")


class HandClock:
    """Time as the test says."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


class Bench:
    """A line before a model whose places, and whether it is loaded, are set by the test."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.is_loaded = True
        self.context_length = 4096
        self.slots = 1
        self.settings = RouterSettings(max_queue_size_per_model=3)
        self.line = WaitingLine(REF, self.clock, lambda: self.settings, self._room)
        self._numbers = itertools.count(1)

    def _room(self, line: WaitingLine, context_length: int | None) -> Room:
        if not self.is_loaded:
            return Room.ALONE
        if (context_length or 0) > self.context_length:
            return Room.NONE if line.in_flight else Room.ALONE
        return Room.READY if line.in_flight < self.slots else Room.NONE

    def ticket(self, **values: Any) -> Ticket:
        return Ticket(number=next(self._numbers), since_s=self.clock.now_s, **values)

    def ask(
        self, timeout_s: float = 30.0, *, is_let_in: bool = False, **values: Any
    ) -> asyncio.Task[Room | None]:
        take = self.line.take(self.ticket(**values), timeout_s, is_let_in=is_let_in)
        return asyncio.create_task(take)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def done(tasks: list[asyncio.Task[Room | None]]) -> list[bool]:
    return [task.done() for task in tasks]


async def test_a_turn_that_is_given_back_goes_to_the_next(bench: Bench) -> None:
    tasks = [bench.ask() for _ in range(3)]
    await settle()
    assert done(tasks) == [True, False, False]
    assert not bench.line.take_ready("", None)
    bench.line.end("", took_s=1.0)
    await settle()
    assert done(tasks) == [True, True, False]
    assert (bench.line.waiting, bench.line.in_flight, bench.line.finished_total) == (1, 1, 1)


async def test_one_brings_the_model_in_while_the_others_wait(bench: Bench) -> None:
    bench.is_loaded, bench.slots = False, 2
    tasks = [bench.ask() for _ in range(4)]
    await settle()
    assert done(tasks) == [True, False, False, False]
    assert tasks[0].result() is Room.ALONE
    bench.is_loaded = True
    bench.line.settle()
    await settle()
    assert done(tasks) == [True, True, False, False]
    assert tasks[1].result() is Room.READY


async def test_when_it_gives_up_the_next_one_brings_it_in(bench: Bench) -> None:
    bench.is_loaded = False
    first, second = bench.ask(), bench.ask()
    await settle()
    bench.line.end("", was_alone=True)
    assert await second is Room.ALONE
    assert await first is Room.ALONE


async def test_those_who_waited_for_a_load_are_told_why_it_failed(bench: Bench) -> None:
    bench.is_loaded = False
    _, *others = [bench.ask() for _ in range(4)]
    await settle()
    bench.line.dismiss(LoadFailed("broken"))
    bench.line.end("", was_alone=True)
    results = await asyncio.gather(*others, return_exceptions=True)
    assert [str(result) for result in results] == ["broken"] * 3
    assert bench.line.is_idle


async def test_those_who_are_to_look_again_get_nothing(bench: Bench) -> None:
    _, *others = [bench.ask() for _ in range(3)]
    await settle()
    bench.line.dismiss()
    assert await asyncio.gather(*others) == [None, None]


async def test_more_context_waits_for_the_last_and_holds_those_behind_it(bench: Bench) -> None:
    bench.slots = 4
    running, large, late = bench.ask(), bench.ask(context_length=8192), bench.ask()
    await settle()
    assert done([running, large, late]) == [True, False, False]
    bench.line.end("")
    await settle()
    assert large.result() is Room.ALONE
    assert not late.done()
    bench.context_length = 8192
    bench.line.settle()
    assert await late is Room.READY


async def test_a_better_priority_passes_one_that_waits_to_be_alone(bench: Bench) -> None:
    bench.slots = 4
    tasks = [bench.ask(), bench.ask(context_length=8192), bench.ask(priority=Priority.HIGH)]
    await settle()
    assert done(tasks) == [True, False, True]


async def test_one_that_waits_to_be_alone_and_leaves_lets_the_others_go(bench: Bench) -> None:
    bench.slots = 4
    tasks = [bench.ask(), bench.ask(context_length=8192), bench.ask()]
    await settle()
    tasks[1].cancel()
    await settle()
    assert done(tasks) == [True, True, True]
    assert tasks[2].result() is Room.READY


async def test_a_turn_that_comes_in_the_moment_its_client_leaves_goes_on(bench: Bench) -> None:
    tasks = [bench.ask() for _ in range(3)]
    await settle()
    bench.line.end("")  # the second has its turn now, and does not know yet
    tasks[1].cancel()
    await settle()
    assert tasks[1].cancelled()
    assert tasks[2].result() is Room.READY
    assert bench.line.in_flight == 1


async def test_one_that_has_left_is_passed_over_before_its_task_has_run(bench: Bench) -> None:
    tasks = [bench.ask() for _ in range(3)]
    await settle()
    tasks[1].cancel()
    bench.line.end("")
    await settle()
    assert tasks[2].result() is Room.READY
    assert (bench.line.waiting, bench.line.in_flight) == (0, 1)


async def test_a_full_line_refuses_with_the_time_it_takes_at_the_observed_rate(bench: Bench) -> None:
    for _ in range(100):
        assert bench.line.take_ready("", None)
        bench.line.end("", took_s=20.0)
    tasks = [bench.ask() for _ in range(4)]
    await settle()
    with pytest.raises(QueueFull) as told:
        await bench.ask()
    assert told.value.retry_after_s == pytest.approx(60.0, abs=1.0)
    assert bench.line.rejected_total == 1
    for task in tasks:
        task.cancel()


async def test_those_at_the_gate_count_for_the_limit_and_pass_it_when_they_come(bench: Bench) -> None:
    tasks = [bench.ask()]
    await settle()
    bench.line.at_gate = 3
    assert not bench.line.is_idle
    with pytest.raises(QueueFull, match="3 requests wait"):
        bench.line.check_length()
    with pytest.raises(QueueFull, match="3 requests wait"):
        await bench.ask()
    for left in (2, 1, 0):
        bench.line.at_gate = left
        tasks.append(bench.ask(is_let_in=True))
        await settle()
        assert bench.line.waiting == 3 - left
    tasks.append(bench.ask(is_let_in=True))
    await settle()
    assert (bench.line.waiting, bench.line.rejected_total) == (4, 2)
    with pytest.raises(QueueFull, match="4 requests wait"):
        await bench.ask()
    for task in tasks:
        task.cancel()


async def test_who_waits_too_long_leaves_the_line(bench: Bench) -> None:
    first, second = bench.ask(), bench.ask(timeout_s=0.01)
    with pytest.raises(TimedOut):
        await second
    assert await first is Room.READY
    assert (bench.line.waiting, bench.line.rejected_total) == (0, 1)


async def test_r9_a_low_priority_waits_twice_the_ageing_at_most_behind_a_flood(bench: Bench) -> None:
    bench.settings = RouterSettings(priority_ageing_seconds=30, max_queue_size_per_model=1000)
    flood = [bench.ask(priority=Priority.HIGH) for _ in range(200)]
    await settle()
    low = bench.ask(priority=Priority.LOW)
    await settle()
    while not low.done():
        bench.clock.now_s += 1.0  # an answer takes a second, and as many come as go
        flood.append(bench.ask(priority=Priority.HIGH))
        bench.line.end("", took_s=1.0)
        await settle()
        assert bench.clock.now_s <= 60
    assert bench.clock.now_s == 60
    for task in flood:
        task.cancel()
