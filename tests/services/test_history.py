"""The history of the machine."""

from __future__ import annotations

import pytest

from tests.web.fake_valet import FakeClock
from tray_valet.core.errors import InvalidValue
from tray_valet.core.metrics import GpuSample, HostSample
from tray_valet.core.watchdog import State
from tray_valet.services.history import HistoryBook
from tray_valet.services.machine import Machine

GB = 2**30


class Host:
    def __init__(self) -> None:
        self.used_gb = 8

    def sample(self) -> HostSample:
        free = (32 - self.used_gb) * GB
        return HostSample(ram_total_bytes=32 * GB, ram_available_bytes=free, cpu_pct=10.0, core_count=8)

    def disk(self, path: str) -> None:
        return None


class CountingGpus:
    missing_because = None

    def __init__(self) -> None:
        self.looks = 0

    def sample(self) -> tuple[GpuSample, ...]:
        self.looks += 1
        return (GpuSample(index=0, uuid="u", name="", vram_total_bytes=24 * GB, vram_used_bytes=6 * GB),)

    def let_sleep(self) -> None: ...

    def close(self) -> None: ...


async def test_every_sample_is_in_it_and_asking_takes_none() -> None:
    clock, gpus, host = FakeClock(), CountingGpus(), Host()
    machine = Machine(host, gpus, clock, lambda: "/", lambda: False)
    book = HistoryBook(clock, tuple, lambda: State.RUNNING)
    machine.tell(book.note)
    for minute in range(30):
        host.used_gb = minute
        await machine.sample(0.0)
        clock.now_s += 60
    assert gpus.looks == 30
    history = book.over(1440)
    assert (history.interval_s, len(history.points)) == (60.0, 30)
    assert [round(p.ram_pct * 32 / 100) for p in history.points] == list(range(30))
    assert {p.vram_pct for p in history.points} == {25.0}
    assert len(book.over(15).points) in (15, 16)
    assert gpus.looks == 30


async def test_the_last_ten_minutes_are_finer() -> None:
    clock = FakeClock()
    machine = Machine(Host(), CountingGpus(), clock, lambda: "/", lambda: False)
    book = HistoryBook(clock, tuple, lambda: State.PAUSED)
    machine.tell(book.note)
    for _ in range(1000):
        await machine.sample(0.0)
        clock.now_s += 5
    fine = book.over(10)
    assert fine.interval_s == 10.0
    assert 60 <= len(fine.points) <= 61
    assert all(p.state is State.PAUSED for p in fine.points)
    assert book.over(11).interval_s == 60.0


def test_before_the_first_sample_it_is_empty() -> None:
    assert HistoryBook(FakeClock(), tuple, lambda: State.RUNNING).over(60).points == ()


@pytest.mark.parametrize("minutes", [0, 1441])
def test_it_goes_back_a_day(minutes: int) -> None:
    with pytest.raises(InvalidValue):
        HistoryBook(FakeClock(), tuple, lambda: State.RUNNING).over(minutes)
