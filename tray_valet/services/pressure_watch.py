"""The pressure watch: measures at every interval and keeps the holds for RAM, CPU and VRAM.

Decides: what of the machine's use is our own models'. Must not: hold the rules (`core/thresholds.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from tray_valet.core.config import ThresholdSettings
from tray_valet.core.holds import Hold, HoldKind, PressureCause
from tray_valet.core.metrics import GpuSample, MachineSample
from tray_valet.core.ports import Clock, ProcessTable
from tray_valet.core.processes import ProcessIdentity, ProcessUsage
from tray_valet.core.snapshot import SignalView
from tray_valet.core.thresholds import PressureState, Reading, evaluate, limits, rebased
from tray_valet.services.fleet import Fleet
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.machine import Machine

_LOG = logging.getLogger(__name__)
_FRESH_S = 1.0


class _CpuMark(msgspec.Struct, frozen=True):
    at_s: float
    runners: tuple[ProcessIdentity, ...]
    cpu_s: float


class PressureWatch:
    """Places a hold a signal while it counts, and ends it when it has cleared."""

    def __init__(
        self,
        machine: Machine,
        table: ProcessTable,
        fleet: Fleet,
        holds: HoldBook,
        clock: Clock,
        settings: Callable[[], ThresholdSettings],
    ) -> None:
        self._machine = machine
        self._table = table
        self._fleet = fleet
        self._holds = holds
        self._clock = clock
        self._settings = settings
        self._state: PressureState = {}
        self._residents: object = None
        self._cpu_mark: _CpuMark | None = None
        self._look_now = asyncio.Event()
        self.signals: tuple[SignalView, ...] = ()

    def look_soon(self) -> None:
        """Look at once: the limits, what is loaded, or what the system says of its memory has changed."""
        self._look_now.set()

    async def run(self) -> None:
        """Look at every interval, until cancelled. A changed interval counts at once."""
        while True:
            # What was measured before the call to look says nothing about its reason.
            max_age_s = 0.0 if self._look_now.is_set() else _FRESH_S
            self._look_now.clear()
            try:
                await self.look(max_age_s)
            except Exception:  # noqa: BLE001  # a task guard
                _LOG.exception("A look at the machine failed; the next one comes in its time")
            try:
                async with asyncio.timeout(float(self._settings().check_interval_seconds)):
                    await self._look_now.wait()
            except TimeoutError:
                continue

    async def look(self, max_age_s: float = _FRESH_S) -> None:
        """Measure once (or take a sample at most so old), evaluate every signal, keep the holds."""
        sample = await self._machine.sample(max_age_s)
        runners = await self._runners()
        usage = await asyncio.to_thread(self._table.usage, runners)
        readings = self._readings(sample, runners, usage)
        residents = [(slot.name, m.name) for slot, m in self._fleet.residents()]
        if residents != self._residents:
            self._residents = residents
            self._state = rebased(self._state, readings, has_models=bool(residents))
        self._state, self.signals = evaluate(
            self._state, readings, self._settings(), self._clock.monotonic_s()
        )
        for reading, view in zip(readings, self.signals, strict=True):
            self._keep_hold(reading, view)
        self._end_orphans({f"pressure:{r.key}" for r in readings})

    async def _runners(self) -> tuple[ProcessIdentity, ...]:
        slots = [s for s in self._fleet.slots.values() if s.provider.is_local and s.loaded]
        found = await asyncio.gather(*(slot.provider.runners() for slot in slots))
        return tuple(dict.fromkeys(r for rs in found for r in rs))

    def _readings(
        self, sample: MachineSample, runners: tuple[ProcessIdentity, ...], usage: ProcessUsage
    ) -> tuple[Reading, ...]:
        host = sample.host
        total = host.ram_total_bytes
        readings = [
            Reading(
                key="ram",
                signal=HoldKind.RAM,
                raw_pct=host.ram_pct,
                ours_pct=100 * usage.ram_bytes / total if total else 0.0,
                total_bytes=total,
            ),
            Reading(
                key="cpu",
                signal=HoldKind.CPU,
                raw_pct=host.cpu_pct,
                ours_pct=self._cpu_pct(runners, usage, host.core_count),
            ),
        ]
        pids = {r.pid for r in runners}
        for gpu in sample.gpus:
            if gpu.vram_total_bytes:
                readings.append(
                    Reading(
                        key=f"vram:{gpu.uuid}",
                        signal=HoldKind.VRAM,
                        raw_pct=gpu.vram_pct,
                        ours_pct=100 * self._vram_of_ours(gpu, pids, len(sample.gpus)) / gpu.vram_total_bytes,
                        total_bytes=gpu.vram_total_bytes,
                        gpu=gpu.name if len(sample.gpus) > 1 else "",
                    )
                )
        return tuple(readings)

    def _cpu_pct(self, runners: tuple[ProcessIdentity, ...], usage: ProcessUsage, cores: int) -> float:
        """CPU of our runners since the last look, in per cent of all cores."""
        now_s, old = self._clock.monotonic_s(), self._cpu_mark
        self._cpu_mark = _CpuMark(now_s, runners, usage.cpu_s)
        if old is None or old.runners != runners or now_s <= old.at_s:
            return 0.0
        return 100 * max(0.0, usage.cpu_s - old.cpu_s) / ((now_s - old.at_s) * max(1, cores))

    def _vram_of_ours(self, gpu: GpuSample, pids: set[int], gpu_count: int) -> int:
        """What our models hold on a GPU: by process where the driver tells, else as providers say."""
        by_process = sum(n for pid, n in (gpu.process_bytes or {}).items() if pid in pids)
        if by_process:
            return by_process
        told = sum(m.vram_bytes for _, m in self._fleet.residents())
        # With several GPUs and no figures by process an even share is the least wrong.
        return min(gpu.vram_used_bytes, told // gpu_count)

    def _keep_hold(self, reading: Reading, view: SignalView) -> None:
        hold_id = f"pressure:{reading.key}"
        settings = self._settings()
        if view.counts:
            if self._holds.is_active(hold_id):
                return  # the cause stays the one that began it
            pause_pct, resume_pct, sustained_s = limits(reading.signal, settings)
            self._holds.place(
                Hold(
                    id=hold_id,
                    kind=reading.signal,
                    owner="valet",
                    cause=PressureCause(
                        signal=reading.signal,
                        value_pct=reading.raw_pct,
                        limit_pct=pause_pct,
                        resume_pct=resume_pct,
                        gpu=reading.gpu,
                        sustained_s=sustained_s,
                    ),
                    since=self._clock.wall_s(),
                    wait_s=float(settings.pause_timeout_seconds),
                    needs_manual_resume=reading.signal is HoldKind.RAM
                    and not settings.auto_resume_on_ram_pressure,
                )
            )
        elif self._holds.is_active(hold_id) and self._may_end(hold_id):
            self._holds.end(hold_id)

    def _may_end(self, hold_id: str) -> bool:
        hold = next(h for h in self._holds.holds.active if h.id == hold_id)
        return not hold.needs_manual_resume or self._holds.is_overridden(hold_id)

    def _end_orphans(self, known: set[str]) -> None:
        """End holds of signals that are no longer measured (a GPU that is gone)."""
        for hold in self._holds.holds.active:
            if hold.id.startswith("pressure:") and hold.id not in known:
                self._holds.end(hold.id)
