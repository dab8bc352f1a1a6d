"""RAM, CPU and disk of the machine, through psutil.

Decides: how they are measured. Must not: block (`cpu_percent` with an interval does) or judge the figures.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType

from tray_valet.core.metrics import DiskSample, HostSample

_COUNTED_TWICE = ("guest", "guest_nice", "interrupt", "dpc")
_SHORTEST_WINDOW_S = 0.2  # over less time, the ticks that CPU time is counted in show


class PsutilHost:
    """`HostSensor` over psutil; a sample costs some 0.04 ms.

    The CPU figure covers the time since the sample before. The first covers the time since the sensor
    was made (0.0 when that is now); samples that come in quick succession share one figure, for over a
    few milliseconds nothing but 0 or 100 could be seen.
    """

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        """`monotonic_s` is the clock (seconds)."""
        import psutil

        self._psutil: ModuleType = psutil
        self._monotonic_s = monotonic_s
        self._core_count = os.cpu_count() or 1
        self._cpu_pct = 0.0
        self._busy_s, self._whole_s = self._cpu_times()
        self._measured_at_s = monotonic_s()

    def sample(self) -> HostSample:
        """Measure RAM and CPU now."""
        memory = self._psutil.virtual_memory()
        return HostSample(
            ram_total_bytes=memory.total,
            ram_available_bytes=memory.available,
            cpu_pct=self._measure_cpu(),
            core_count=self._core_count,
        )

    def disk(self, path: str) -> DiskSample | None:
        """Measure the volume that holds `path`, or would hold it: its nearest parent that exists."""
        place = _nearest_existing(path)
        if place is None:
            return None
        try:
            usage = self._psutil.disk_usage(place)
        except OSError:
            return None
        return DiskSample(path=place, total_bytes=usage.total, used_bytes=usage.used, free_bytes=usage.free)

    def _measure_cpu(self) -> float:
        now_s = self._monotonic_s()
        if now_s - self._measured_at_s >= _SHORTEST_WINDOW_S:
            busy_s, whole_s = self._cpu_times()
            if whole_s > self._whole_s:
                share = (busy_s - self._busy_s) / (whole_s - self._whole_s)
                self._cpu_pct = round(100.0 * min(1.0, max(0.0, share)), 1)
            self._busy_s, self._whole_s, self._measured_at_s = busy_s, whole_s, now_s
        return self._cpu_pct

    def _cpu_times(self) -> tuple[float, float]:
        """(busy, whole) CPU seconds of all cores since the machine started.

        Waiting for disks is idle time. Guests' time is in `user` and `nice` already (proc_stat(5)), and
        Windows' interrupts are in `system`. Not psutil's `cpu_percent`: it remembers per thread, so the
        first call in every worker thread says 0.
        """
        fields: dict[str, float] = self._psutil.cpu_times()._asdict()
        whole_s = sum(fields.values()) - sum(fields.get(name, 0.0) for name in _COUNTED_TWICE)
        return whole_s - fields["idle"] - fields.get("iowait", 0.0), whole_s


def _nearest_existing(path: str) -> str | None:
    place = os.path.abspath(os.path.expanduser(path))
    while not os.path.exists(place):
        parent = os.path.dirname(place)
        if parent == place:
            return None  # a drive that is not there
        place = parent
    return place
