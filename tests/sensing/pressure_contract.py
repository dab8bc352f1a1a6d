"""What every source of pressure notices keeps, and the ear that listens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tray_valet.core.ports import PressureNotices


class Ear:
    """Notes when notices came (seconds of the loop's clock)."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def hear(self) -> None:
        self.times_s.append(asyncio.get_running_loop().time())  # fails anywhere but on the loop's thread
        self.first.set()
        if len(self.times_s) > 1:
            self.second.set()

    def is_running(self) -> bool:
        return self.task is not None and not self.task.done()


@asynccontextmanager
async def listening(sensor: PressureNotices) -> AsyncIterator[Ear]:
    """Run the sensor; cancel it at the end, after which it tells nothing more."""
    ear = Ear()
    ear.task = asyncio.create_task(sensor.run(ear.hear), name="pressure notices")
    await asyncio.sleep(0)
    try:
        yield ear
    finally:
        ear.task.cancel()
        await asyncio.wait([ear.task], timeout=30)
        assert ear.task.cancelled()
        count = len(ear.times_s)
        await asyncio.sleep(0)
        assert len(ear.times_s) == count


async def until_missing(sensor: PressureNotices) -> str:
    """Wait until the sensor says that no notices will come, and why."""
    async with asyncio.timeout(30):
        while sensor.missing_because is None:  # noqa: ASYNC110  # a property, not an event
            await asyncio.sleep(0.001)
    return sensor.missing_because


class PressureNoticesContract:
    """Subclass, and give a sensor that works nowhere and one whose system tells of pressure at once."""

    def mute(self) -> PressureNotices:
        raise NotImplementedError

    def telling(self) -> PressureNotices:
        raise NotImplementedError

    async def test_it_says_who_tells(self) -> None:
        assert self.mute().source

    async def test_where_nothing_is_told_it_says_why_and_waits(self) -> None:
        sensor = self.mute()
        async with listening(sensor) as heard:
            assert sensor.missing_because
            assert heard.is_running()
            assert heard.times_s == []

    async def test_pressure_is_told_on_the_loop(self) -> None:
        sensor = self.telling()
        async with listening(sensor) as heard:
            async with asyncio.timeout(30):
                await heard.first.wait()
            assert sensor.missing_because is None

    async def test_it_can_be_run_again_after_its_end(self) -> None:
        sensor = self.telling()
        for _ in range(2):
            async with listening(sensor) as heard, asyncio.timeout(30):
                await heard.first.wait()
