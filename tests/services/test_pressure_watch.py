"""The pressure watch's loop: a notice of the system makes it look, and never pauses by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.services.house import GB, FakeProvider, FakeTable
from tray_valet.core.config import ThresholdSettings
from tray_valet.core.holds import HoldKind
from tray_valet.core.metrics import HostSample, MachineSample
from tray_valet.services.clock import SystemClock
from tray_valet.services.fleet import Fleet
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.pressure_watch import PressureWatch


class Machine:
    """Figures that the test sets; remembers how old they might have been."""

    def __init__(self) -> None:
        self.ram_free_bytes = 20 * GB
        self.max_ages_s: list[float] = []

    async def sample(self, max_age_s: float = 1.0) -> MachineSample:
        self.max_ages_s.append(max_age_s)
        return MachineSample(
            host=HostSample(
                ram_total_bytes=32 * GB,
                ram_available_bytes=self.ram_free_bytes,
                cpu_pct=1.0,
                core_count=8,
            )
        )


class Watched:
    def __init__(self) -> None:
        clock, provider = SystemClock(), FakeProvider()
        table = FakeTable(provider)
        self.machine = Machine()
        self.holds = HoldBook(clock, table, lambda _fact: None, lambda: None)
        fleet = Fleet(clock, lambda _fact: None, lambda: None)
        # An hour between looks: whatever is seen sooner was asked for.
        settings = ThresholdSettings(check_interval_seconds=3600)
        self.watch = PressureWatch(self.machine, table, fleet, self.holds, clock, lambda: settings)

    def kinds(self) -> list[HoldKind]:
        return [hold.kind for hold in self.holds.holds.active]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110  # the watched has no event for it
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("ram_free_bytes", "holds"), [(20 * GB, []), (5 * GB, []), (2 * GB, [HoldKind.RAM])])
async def test_a_notice_makes_it_look_at_once_and_only_what_is_seen_pauses(
    ram_free_bytes: int, holds: list[HoldKind]
) -> None:
    watched = Watched()
    task = asyncio.create_task(watched.watch.run(), name="pressure")
    try:
        await until(lambda: len(watched.machine.max_ages_s) == 1)
        watched.machine.ram_free_bytes = ram_free_bytes
        watched.watch.look_soon()
        await until(lambda: len(watched.machine.max_ages_s) == 2)
        await until(lambda: watched.kinds() == holds)
        for _ in range(20):
            await asyncio.sleep(0)
        assert watched.kinds() == holds
        assert len(watched.machine.max_ages_s) == 2
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_was_measured_before_the_notice_does_not_answer_it() -> None:
    watched = Watched()
    task = asyncio.create_task(watched.watch.run(), name="pressure")
    try:
        await until(lambda: len(watched.machine.max_ages_s) == 1)
        watched.watch.look_soon()
        await until(lambda: len(watched.machine.max_ages_s) == 2)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert watched.machine.max_ages_s == [1.0, 0.0]
