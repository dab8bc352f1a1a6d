"""MacPressure with levels handed in, and the real sysctl where this is macOS."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.sensing.pressure_contract import PressureNoticesContract, listening, until_missing
from tray_valet.core.errors import NotSupported
from tray_valet.core.ports import PressureNotices
from tray_valet.sensing.macos_pressure import MacPressure, Rises, pressure_level

NORMAL, WARNING, CRITICAL = 1, 2, 4


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


def refused() -> int:
    raise NotSupported("macOS does not tell its memory pressure: Operation not permitted")


class TestContract(PressureNoticesContract):
    def mute(self) -> PressureNotices:
        return MacPressure(read_level=refused)

    def telling(self) -> PressureNotices:
        return MacPressure(read_level=lambda: WARNING, sleep=at_once)


@pytest.mark.parametrize(
    ("levels", "rises"),
    [
        ([NORMAL] * 5, 0),
        ([0, 0, 1, 1], 0),  # kernels that have not made up their mind yet
        ([WARNING] * 5, 1),
        ([NORMAL, WARNING, WARNING, NORMAL], 1),
        ([NORMAL, WARNING, CRITICAL, CRITICAL], 2),
        ([CRITICAL, WARNING, WARNING], 1),
        ([WARNING, NORMAL, WARNING], 2),
    ],
)
def test_a_rise_is_told_and_a_level_that_lasts_is_not(levels: list[int], rises: int) -> None:
    watch = Rises()
    assert [watch.has_risen_to(level) for level in levels].count(True) == rises


async def test_a_kernel_that_stops_telling_is_said() -> None:
    answers = iter([NORMAL, NORMAL])

    def read() -> int:
        level = next(answers, None)
        return refused() if level is None else level

    sensor = MacPressure(read_level=read, sleep=at_once)
    async with listening(sensor) as heard:
        await until_missing(sensor)
        assert heard.is_running()


@pytest.mark.skipif(sys.platform == "darwin", reason="for the others")
async def test_elsewhere_it_says_that_this_is_not_macos() -> None:
    sensor = MacPressure()
    async with listening(sensor):
        assert "macOS'" in (sensor.missing_because or "")


@pytest.mark.skipif(sys.platform != "darwin", reason="asks macOS' kernel")
def test_the_real_kernel_tells_a_known_level() -> None:
    assert pressure_level() in (NORMAL, WARNING, CRITICAL)
