"""WindowsPressure over a kernel32 in memory, whose objects behave as documented, and the real one."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest

from tests.sensing.pressure_contract import PressureNoticesContract, listening, until_missing
from tray_valet.core.ports import PressureNotices
from tray_valet.sensing.windows_pressure import WindowsPressure

LOW_MEMORY = 0
FAILED = 0xFFFFFFFF
FOR_EVER_MS = 0xFFFFFFFF
TIMED_OUT = 258


class Kernel32:
    """Objects that are signalled or not. A rest between notices takes a hundredth of its time."""

    def __init__(self, *, is_low: bool = False) -> None:
        self._changed = threading.Condition()
        self._signalled: dict[int, bool] = {}
        self._is_low = is_low
        self.low: int | None = None
        self.refused: set[str] = set()
        self.has_wait_failed = False
        self.rest_count = 0
        self.closed: list[int] = []

    def _new(self, is_signalled: bool) -> int:
        handle = 4 * (len(self._signalled) + len(self.closed) + 1)
        self._signalled[handle] = is_signalled
        return handle

    def CreateMemoryResourceNotification(self, kind: int) -> int | None:  # noqa: N802
        assert kind == LOW_MEMORY
        if "notification" in self.refused:
            return None
        self.low = self._new(self._is_low)
        return self.low

    def CreateEventW(self, security: None, manual: bool, initial: bool, name: None) -> int | None:  # noqa: N802
        assert (security, manual, initial, name) == (None, True, False, None)
        return None if "event" in self.refused else self._new(False)

    def SetEvent(self, handle: int) -> int:  # noqa: N802
        assert handle != self.low
        self.signal(handle, True)
        return 1

    def signal(self, handle: int | None, is_signalled: bool) -> None:
        assert handle is not None
        with self._changed:
            self._signalled[handle] = is_signalled
            self._changed.notify_all()

    def WaitForMultipleObjects(self, count: int, array: Any, wait_all: bool, timeout_ms: int) -> int:  # noqa: N802
        handles = list(array)
        assert len(handles) == count
        assert not wait_all
        if self.has_wait_failed:
            return FAILED
        if timeout_ms != FOR_EVER_MS:
            self.rest_count += 1
        with self._changed:
            assert not set(handles) & set(self.closed), "a closed handle is waited for"
            limit_s = None if timeout_ms == FOR_EVER_MS else timeout_ms / 100_000
            if not self._changed.wait_for(lambda: any(self._signalled[h] for h in handles), limit_s):
                return TIMED_OUT
            return next(n for n, handle in enumerate(handles) if self._signalled[handle])

    def CloseHandle(self, handle: int) -> int:  # noqa: N802
        assert all(thread.name != "low memory" for thread in threading.enumerate()), "closed under the wait"
        del self._signalled[handle]
        self.closed.append(handle)
        return 1


class TestContract(PressureNoticesContract):
    def mute(self) -> PressureNotices:
        kernel = Kernel32()
        kernel.refused = {"notification"}
        return WindowsPressure(lambda: kernel)

    def telling(self) -> PressureNotices:
        return WindowsPressure(lambda: Kernel32(is_low=True))


async def test_memory_that_gets_low_is_told() -> None:
    kernel = Kernel32()
    async with listening(WindowsPressure(lambda: kernel)) as heard:
        await asyncio.sleep(0.05)
        assert heard.times_s == []
        kernel.signal(kernel.low, True)
        async with asyncio.timeout(30):
            await heard.first.wait()


async def test_while_memory_stays_low_it_is_told_again_a_second_apart_at_least() -> None:
    kernel = Kernel32(is_low=True)
    async with listening(WindowsPressure(lambda: kernel)) as heard:
        async with asyncio.timeout(30):
            await heard.second.wait()
    assert kernel.rest_count > 2  # the thread rests each time instead of turning in circles
    assert heard.times_s[1] - heard.times_s[0] >= 1.0


@pytest.mark.parametrize("is_low", [False, True])
async def test_cancelling_ends_the_thread_and_closes_both_handles(is_low: bool) -> None:
    kernel = Kernel32(is_low=is_low)
    async with listening(WindowsPressure(lambda: kernel)):
        await asyncio.sleep(0.02)
        assert any(thread.name == "low memory" for thread in threading.enumerate())
    assert all(thread.name != "low memory" for thread in threading.enumerate())
    assert len(kernel.closed) == 2


@pytest.mark.parametrize(("refused", "closed"), [("notification", 0), ("event", 1)])
async def test_what_cannot_be_opened_is_said_and_nothing_stays_open(refused: str, closed: int) -> None:
    kernel = Kernel32()
    kernel.refused = {refused}
    sensor = WindowsPressure(lambda: kernel)
    async with listening(sensor):
        assert "low memory" in (sensor.missing_because or "")
    assert len(kernel.closed) == closed


async def test_a_wait_that_fails_is_said_and_not_repeated() -> None:
    kernel = Kernel32()
    kernel.has_wait_failed = True
    sensor = WindowsPressure(lambda: kernel)
    async with listening(sensor) as heard:
        assert "failed" in await until_missing(sensor)
        assert heard.is_running()


@pytest.mark.skipif(sys.platform == "win32", reason="for the others")
async def test_elsewhere_it_says_that_this_is_not_windows() -> None:
    sensor = WindowsPressure()
    async with listening(sensor):
        assert "Windows'" in (sensor.missing_because or "")


@pytest.mark.skipif(sys.platform != "win32", reason="asks Windows")
async def test_the_real_windows_is_listened_to() -> None:
    sensor = WindowsPressure()
    async with listening(sensor) as heard:
        await asyncio.sleep(0.05)
        assert sensor.missing_because is None
        assert heard.is_running()
