"""PSI notices: real triggers on the running kernel, and kernels that have none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sensing.pressure_contract import Ear, PressureNoticesContract, listening, until_missing
from tests.sensing.pressure_groups import small_group_or_skip, takes_triggers
from tray_valet.core.ports import PressureNotices
from tray_valet.sensing.linux_pressure import LinuxPressure

if sys.platform == "linux":
    import fcntl
    import termios

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PSI is Linux'")

GROUPS_V2 = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
PATIENCE_S = 30.0

needs_psi = pytest.mark.skipif(not takes_triggers(), reason="this kernel takes no PSI trigger from us")


class TestContract(PressureNoticesContract):
    def mute(self) -> PressureNotices:
        return LinuxPressure(file=Path("/proc/there is no such file"))

    def telling(self) -> PressureNotices:
        # Something urgent to be read is POLLPRI, as PSI's events are, but without the wait for pressure.
        return _Urgent()


class _Urgent(LinuxPressure):
    """In the place of PSI's file: a terminal in packet mode that has something urgent to be read."""

    def _register(self, at_end: contextlib.ExitStack) -> select.epoll:
        ours, theirs = os.openpty()
        at_end.callback(os.close, ours)
        at_end.callback(os.close, theirs)
        fcntl.ioctl(ours, termios.TIOCPKT, b"\1\0\0\0")
        termios.tcflush(theirs, termios.TCIOFLUSH)
        events = select.epoll()
        at_end.callback(events.close)
        events.register(ours, select.EPOLLPRI | select.EPOLLERR)
        return events


@pytest.fixture
def small_group() -> Iterator[Path]:
    yield from small_group_or_skip()


@needs_psi
@pytest.mark.slow
async def test_real_pressure_is_told(small_group: Path, tmp_path: Path) -> None:
    # Reading a file six times as large as the group's memory makes it wait for memory at every turn.
    script = (
        f'echo $$ > {small_group}/cgroup.procs; head -c 200000000 /dev/zero > "$1"; '
        'while :; do cat "$1" > /dev/null; done'
    )
    sensor = LinuxPressure(stall_s=0.001)
    async with listening(sensor) as heard:
        assert sensor.missing_because is None
        waster = subprocess.Popen(  # noqa: ASYNC220  # starts at once
            ["/bin/sh", "-c", script, "sh", str(tmp_path / "large")], start_new_session=True
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                await heard.first.wait()
                await heard.second.wait()
        finally:
            os.killpg(waster.pid, 9)
            waster.wait()
    first_s, second_s = heard.times_s[:2]
    assert second_s - first_s >= 1.0


@needs_psi
async def test_without_pressure_nothing_is_told() -> None:
    # The longest stall there can be in two seconds: as good as never.
    async with listening(LinuxPressure(stall_s=2.0)) as heard:
        for _ in range(5):
            await asyncio.sleep(0)
        assert heard.times_s == []


@needs_psi
async def test_cancelling_gives_every_descriptor_back() -> None:
    before = set(os.listdir("/proc/self/fd"))
    async with listening(LinuxPressure()):
        assert len(set(os.listdir("/proc/self/fd"))) >= len(before) + 2
    assert len(os.listdir("/proc/self/fd")) == len(before)


@needs_psi
async def test_a_window_that_the_kernel_refuses_is_no_crash() -> None:
    sensor = LinuxPressure(stall_s=0.1, window_s=11)
    async with listening(sensor):
        assert "PSI" in (sensor.missing_because or "")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="becomes another user")
@needs_psi
def test_a_user_without_privileges_may_ask() -> None:
    # What the running kernel grants is compared with what the sensor says, in a process without rights.
    script = """
import asyncio, os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with open("/proc/pressure/memory", "r+b", buffering=0) as file:
        file.write(b"some 100000 2000000\\0")
    granted = True
except OSError:
    granted = False
async def main():
    sensor = LinuxPressure()
    task = asyncio.create_task(sensor.run(lambda: None))
    await asyncio.sleep(0)
    print(granted, sensor.missing_because is None)
    task.cancel()
asyncio.run(main())
"""
    imports = "from tray_valet.sensing.linux_pressure import LinuxPressure\n"
    done = subprocess.run(
        [sys.executable, "-c", imports + script], capture_output=True, text=True, timeout=60, check=True
    )
    granted, works = done.stdout.split()
    assert granted == works


async def test_a_kernel_without_psi_is_said_and_waited_out(tmp_path: Path) -> None:
    sensor = LinuxPressure(file=tmp_path / "pressure" / "memory")
    async with listening(sensor) as heard:
        assert sensor.missing_because == "this kernel keeps no pressure figures (PSI)"
        assert heard.is_running()


async def test_a_container_that_shows_figures_as_a_mere_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    sensor = LinuxPressure(file=file)
    async with listening(sensor) as heard:
        assert "does not let us ask" in (sensor.missing_because or "")
        assert heard.is_running()


async def test_a_source_that_goes_away_is_said_once_and_not_listened_to_any_more() -> None:
    # A terminal whose other side has closed reports POLLERR for ever, as a trigger does whose file has gone.
    ours, theirs = os.openpty()
    sensor = _Counting(file=Path(os.ttyname(theirs)))
    try:
        async with listening(sensor) as heard:
            assert sensor.missing_because is None
            os.close(ours)
            await _is_gone(sensor, heard)
    finally:
        os.close(theirs)


@needs_psi
async def test_the_figures_of_a_group_that_is_removed_are_said_to_be_gone() -> None:
    group = next((g for g in GROUPS_V2 if (g / "cgroup.procs").exists()), None)
    if group is None or not os.access(group, os.W_OK):
        pytest.skip("no control group of version 2 can be made here")
    group = group / f"tray-valet-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of version 2 can be made here: {error}")
    sensor = _Counting(file=group / "memory.pressure")
    async with listening(sensor) as heard:
        group.rmdir()
        assert sensor.missing_because is None
        await _is_gone(sensor, heard)


class _Counting(LinuxPressure):
    """Counts how often the loop found something to be read."""

    wake_count = 0

    def _heard(self, *rest: Any) -> None:
        self.wake_count += 1
        super()._heard(*rest)


async def _is_gone(sensor: _Counting, heard: Ear) -> None:
    reason = await until_missing(sensor)
    for _ in range(50):
        await asyncio.sleep(0)
    assert sensor.wake_count == 1
    assert "taken its pressure figures away" in reason
    assert heard.times_s == []
    assert heard.is_running()
