"""NoticePace with a loop whose time the test sets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tray_valet.sensing.notice_pace import NoticePace


class Loop:
    """The part of a loop that is used."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(when_s, callback)
        self._timers.append(timer)
        return timer

    def advance(self, by_s: float) -> None:
        end_s = self.now_s + by_s
        while due := [t for t in self._timers if not t.is_cancelled and t.when_s <= end_s]:
            timer = min(due, key=lambda t: t.when_s)
            self._timers.remove(timer)
            self.now_s = timer.when_s
            timer.callback()
        self.now_s = end_s


class Timer:
    def __init__(self, when_s: float, callback: Callable[[], None]) -> None:
        self.when_s = when_s
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.mark.parametrize(
    ("told_s", "passed_on_s"),
    [
        ([0.0], [0.0]),
        ([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]),
        ([0.0, 0.2], [0.0, 1.0]),
        ([0.0, 0.2, 0.4, 0.9], [0.0, 1.0]),
        ([0.0, 0.2, 1.5, 5.0], [0.0, 1.0, 2.0, 5.0]),
    ],
)
def test_one_a_second_at_most_and_the_last_one_is_never_lost(
    told_s: list[float], passed_on_s: list[float]
) -> None:
    loop, passed_on = Loop(), []
    start_s = loop.now_s
    pace = NoticePace(lambda: passed_on.append(loop.now_s - start_s), loop)
    for at_s in told_s:
        loop.advance(start_s + at_s - loop.now_s)
        pace.tell()
    loop.advance(10)
    assert passed_on == pytest.approx(passed_on_s)


def test_after_the_end_nothing_is_told() -> None:
    loop, passed_on = Loop(), []
    pace = NoticePace(lambda: passed_on.append(loop.now_s), loop)
    pace.tell()
    pace.tell()
    pace.close()
    loop.advance(10)
    pace.tell()
    loop.advance(10)
    assert len(passed_on) == 1
