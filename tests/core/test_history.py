"""Points of the machine's figures."""

from __future__ import annotations

import pytest

from tray_valet.core.errors import InvalidValue
from tray_valet.core.history import Point, Ring, averaged, check_minutes, point_of
from tray_valet.core.metrics import GpuSample, HostSample, MachineSample
from tray_valet.core.watchdog import State

GB = 2**30


def point(
    at: float, ram_pct: float = 50.0, vram_pct: float | None = None, state: State = State.RUNNING
) -> Point:
    return Point(at=at, ram_pct=ram_pct, cpu_pct=10.0, state=state, vram_pct=vram_pct)


def test_samples_of_one_interval_become_their_average_with_the_last_state() -> None:
    ring = Ring(60.0, 10)
    for at, ram_pct, state in (
        (60.0, 10.0, State.RUNNING),
        (75.0, 20.0, State.PAUSING),
        (119.9, 60.0, State.PAUSED),
    ):
        ring.add(point(at, ram_pct, state=state))
    ring.add(point(120.0, 5.0))
    assert [(p.at, p.ram_pct, p.state, p.samples) for p in ring.since(0.0)] == [
        (60.0, pytest.approx(30.0), State.PAUSED, 3),
        (120.0, 5.0, State.RUNNING, 1),
    ]


def test_the_oldest_fall_out() -> None:
    ring = Ring(60.0, 1440)
    for n in range(3000):
        ring.add(point(n * 60.0))
    points = ring.since(0.0)
    assert (len(points), points[0].at, points[-1].at) == (1440, 1560 * 60.0, 2999 * 60.0)


def test_a_clock_that_is_set_back_leaves_no_future() -> None:
    ring = Ring(60.0, 10)
    for at in (60.0, 120.0, 180.0, 100.0):
        ring.add(point(at))
    assert [p.at for p in ring.since(0.0)] == [60.0]


def test_an_interval_that_has_begun_before_the_asked_time_is_in_it() -> None:
    ring = Ring(60.0, 10)
    ring.add(point(60.0))
    ring.add(point(120.0))
    assert [p.at for p in ring.since(130.0)] == [120.0]


def test_a_gpu_that_was_measured_only_sometimes_counts_when_it_was() -> None:
    assert averaged(point(0.0), point(5.0, vram_pct=80.0)).vram_pct == 80.0
    assert averaged(point(0.0, vram_pct=80.0), point(5.0)).vram_pct == 80.0
    assert averaged(point(0.0, vram_pct=80.0), point(5.0, vram_pct=40.0)).vram_pct == 60.0
    assert averaged(point(0.0), point(5.0)).vram_pct is None


def test_several_gpus_are_one() -> None:
    host = HostSample(ram_total_bytes=32 * GB, ram_available_bytes=8 * GB, cpu_pct=12.0, core_count=8)
    gpus = tuple(
        GpuSample(index=n, uuid=str(n), name="", vram_total_bytes=total * GB, vram_used_bytes=used * GB)
        for n, (total, used) in enumerate(((24, 12), (8, 4)))
    )
    made = point_of(MachineSample(host=host, gpus=gpus, taken_at=7.0), (), State.PAUSED)
    assert (made.at, made.ram_pct, made.cpu_pct, made.vram_pct) == (7.0, 75.0, 12.0, 50.0)
    assert point_of(MachineSample(host=host, taken_at=7.0), (), State.PAUSED).vram_pct is None


@pytest.mark.parametrize("minutes", [0, -1, 1441, 10**9])
def test_the_history_goes_back_a_day(minutes: int) -> None:
    with pytest.raises(InvalidValue) as told:
        check_minutes(minutes)
    assert told.value.param == "minutes"
    assert check_minutes(1) == 1
    assert check_minutes(1440) == 1440
