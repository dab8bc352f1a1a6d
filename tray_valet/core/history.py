"""The history: how full the machine was over the last day, in points that are averages.

Decides: how fine it is (ten seconds for the last ten minutes, a minute for the last day), and how samples
become a point. Must not: measure, or read a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from tray_valet.core.errors import InvalidValue
from tray_valet.core.metrics import MachineSample
from tray_valet.core.snapshot import SignalView
from tray_valet.core.watchdog import State

MOST_MINUTES = 1440
FINE_MINUTES = 10
FINE_INTERVAL_S = 10.0
INTERVAL_S = 60.0


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One interval: `at` is its beginning (Unix seconds), the per cents are averages over its samples.

    `ours_…`: the part that our models hold. VRAM is that of all GPUs together; None: no GPU was measured.
    `state`: at the end of the interval.
    """

    at: float
    ram_pct: float
    cpu_pct: float
    state: State
    vram_pct: float | None = None
    ours_ram_pct: float | None = None
    ours_vram_pct: float | None = None
    samples: int = 1


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The points of the asked time, oldest first."""

    interval_s: float
    points: tuple[Point, ...]


class Ring:
    """The newest points of one interval; what is older falls out."""

    def __init__(self, interval_s: float, size: int) -> None:
        self.interval_s = interval_s
        self._points: deque[Point] = deque(maxlen=size)

    def add(self, sample: Point) -> None:
        """Add a sample to its interval's point, or begin the next one."""
        at = sample.at - sample.at % self.interval_s
        while self._points and self._points[-1].at > at:
            self._points.pop()  # the clock was set back: what it said before was not so
        placed = msgspec.structs.replace(sample, at=at)
        if self._points and self._points[-1].at == at:
            placed = averaged(self._points.pop(), placed)
        self._points.append(placed)

    def since(self, at: float) -> tuple[Point, ...]:
        """The points of intervals that had not ended at `at` (Unix seconds)."""
        return tuple(point for point in self._points if point.at + self.interval_s > at)


def point_of(sample: MachineSample, signals: Sequence[SignalView], state: State) -> Point:
    """One sample as a point. `signals`: what was last known of our models' part."""
    total = sum(gpu.vram_total_bytes for gpu in sample.gpus)
    used = sum(gpu.vram_used_bytes for gpu in sample.gpus)
    ours_vram = [view.ours_pct for view in signals if view.signal == "vram"]
    return Point(
        at=sample.taken_at,
        ram_pct=sample.host.ram_pct,
        cpu_pct=sample.host.cpu_pct,
        state=state,
        vram_pct=100.0 * used / total if total else None,
        ours_ram_pct=next((view.ours_pct for view in signals if view.signal == "ram"), None),
        ours_vram_pct=sum(ours_vram) / len(ours_vram) if ours_vram and total else None,
    )


def averaged(old: Point, new: Point) -> Point:
    """Both as one point, each with the weight of its samples."""
    count = old.samples + new.samples

    def mean(one: float | None, other: float | None) -> float | None:
        if one is None or other is None:
            return other if one is None else one
        return one + (other - one) * new.samples / count

    return Point(
        at=old.at,
        ram_pct=mean(old.ram_pct, new.ram_pct) or 0.0,
        cpu_pct=mean(old.cpu_pct, new.cpu_pct) or 0.0,
        state=new.state,
        vram_pct=mean(old.vram_pct, new.vram_pct),
        ours_ram_pct=mean(old.ours_ram_pct, new.ours_ram_pct),
        ours_vram_pct=mean(old.ours_vram_pct, new.ours_vram_pct),
        samples=count,
    )


def check_minutes(minutes: int) -> int:
    """Return `minutes` if the history goes back so far. Raises InvalidValue."""
    if not 1 <= minutes <= MOST_MINUTES:
        raise InvalidValue(
            f"The history does not go back {minutes} minutes.",
            remedy=f"Use 1 to {MOST_MINUTES}.",
            param="minutes",
        )
    return minutes
