"""PsutilHost on the real machine, with a clock handed in."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from tray_valet.sensing.host import PsutilHost


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_memory_is_what_psutil_counts() -> None:
    sample = PsutilHost(time.monotonic).sample()
    assert sample.ram_total_bytes == psutil.virtual_memory().total
    assert sample.ram_pct == pytest.approx(psutil.virtual_memory().percent, abs=2.0)
    assert sample.core_count == os.cpu_count()


def test_the_first_sample_is_sane_and_costs_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))  # psutil's way to wait
    sample = PsutilHost(time.monotonic).sample()
    assert sample.cpu_pct == 0.0


def test_cpu_covers_the_time_since_the_sample_before() -> None:
    clock = Clock()
    host = PsutilHost(clock)
    end_s = time.process_time() + 0.5
    while time.process_time() < end_s:
        pass
    clock.now_s = 1.0
    busy = host.sample().cpu_pct
    assert 100.0 / (os.cpu_count() or 1) * 0.5 < busy <= 100.0
    # Asked again at once, it does not report the nothing in between.
    clock.now_s = 1.01
    assert host.sample().cpu_pct == busy


def test_cpu_is_always_a_percentage() -> None:
    clock = Clock()
    host = PsutilHost(clock)
    for step in range(1, 20):
        clock.now_s = float(step)
        assert 0.0 <= host.sample().cpu_pct <= 100.0


def test_the_disk_is_the_one_that_holds_the_path(tmp_path: Path) -> None:
    disk = PsutilHost(time.monotonic).disk(str(tmp_path))
    assert disk is not None
    usage = psutil.disk_usage(str(tmp_path))
    assert disk.path == str(tmp_path)
    assert disk.total_bytes == usage.total
    assert disk.free_bytes == pytest.approx(usage.free, rel=0.05)


def test_a_path_that_is_not_there_yet_is_measured_where_it_would_be(tmp_path: Path) -> None:
    host = PsutilHost(time.monotonic)
    disk = host.disk(str(tmp_path / "models" / "later" / "file.gguf"))
    assert disk is not None
    assert disk.path == str(tmp_path)


def test_another_volume_is_another_disk() -> None:
    host = PsutilHost(time.monotonic)
    if not os.path.ismount("/dev/shm"):
        pytest.skip("no second volume here")
    shm, root = host.disk("/dev/shm/models"), host.disk("/")
    assert shm is not None
    assert root is not None
    assert shm.total_bytes != root.total_bytes
