"""The machine's figures: one recent sample of host, GPUs and disk for everybody who asks.

Decides: how old a sample may be, and that GPUs are left to sleep while none of our models needs them.
Must not: judge a sample (`pressure_watch.py` does). Everything that may block runs in a worker thread,
once, however many ask at the same time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tray_valet.core.metrics import DiskSample, GpuSample, HostSample, MachineSample
from tray_valet.core.ports import Clock, GpuSensor, HostSensor

_LOG = logging.getLogger(__name__)
_FRESH_S = 1.0


class Machine:
    """Takes and keeps samples. `models_dir` names the volume that holds the models; `is_in_use` says
    whether a model is in memory."""

    def __init__(
        self,
        host: HostSensor,
        gpus: GpuSensor,
        clock: Clock,
        models_dir: Callable[[], str],
        is_in_use: Callable[[], bool],
    ) -> None:
        self._host = host
        self._gpus = gpus
        self._clock = clock
        self._models_dir = models_dir
        self._is_in_use = is_in_use
        self._taken_at_s = -_FRESH_S
        self._in_progress: asyncio.Task[MachineSample] | None = None
        self._listeners: list[Callable[[MachineSample], None]] = []
        self.latest: MachineSample | None = None

    def tell(self, listener: Callable[[MachineSample], None]) -> None:
        """Have `listener` called on the loop with every sample taken from now on. It must be quick."""
        self._listeners.append(listener)

    @property
    def gpu_missing_because(self) -> str | None:
        return self._gpus.missing_because

    async def sample(self, max_age_s: float = _FRESH_S) -> MachineSample:
        """A sample at most `max_age_s` old."""
        if self.latest is not None and self._clock.monotonic_s() - self._taken_at_s <= max_age_s:
            return self.latest
        if self._in_progress is None:
            self._in_progress = asyncio.create_task(self._take(), name="sample the machine")
        return await asyncio.shield(self._in_progress)

    async def _take(self) -> MachineSample:
        try:
            host, gpus, disk = await asyncio.to_thread(self._measure, self._models_dir(), self._is_in_use())
            self.latest = MachineSample(host=host, gpus=gpus, disk=disk, taken_at=self._clock.wall_s())
            self._taken_at_s = self._clock.monotonic_s()
            for tell in self._listeners:
                tell(self.latest)
            return self.latest
        finally:
            self._in_progress = None

    def _measure(
        self, models_dir: str, is_in_use: bool
    ) -> tuple[HostSample, tuple[GpuSample, ...], DiskSample | None]:
        """In a worker thread."""
        measured = (self._host.sample(), self._gpus.sample(), self._host.disk(models_dir))
        if not is_in_use:
            self._gpus.let_sleep()
        return measured
