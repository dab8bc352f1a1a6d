"""Samples of the machine: host, GPUs, disk.

Decides: the units (bytes, per cent of the whole, seconds) in which measurements reach the rules.
Must not: measure.
"""

from __future__ import annotations

import msgspec


class HostSample(msgspec.Struct, frozen=True, kw_only=True):
    """RAM and CPU of the machine. Used = total − available, as `psutil.virtual_memory().percent` counts."""

    ram_total_bytes: int
    ram_available_bytes: int
    cpu_pct: float  # over the time since the sample before; 0–100 of all cores
    core_count: int

    @property
    def ram_used_bytes(self) -> int:
        return self.ram_total_bytes - self.ram_available_bytes

    @property
    def ram_pct(self) -> float:
        return 100.0 * self.ram_used_bytes / self.ram_total_bytes if self.ram_total_bytes else 0.0


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. `process_bytes` is None where the driver does not tell (Windows WDDM)."""

    index: int
    uuid: str
    name: str
    vram_total_bytes: int
    vram_used_bytes: int
    utilization_pct: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    process_bytes: dict[int, int] | None = None  # PID → bytes

    @property
    def vram_pct(self) -> float:
        return 100.0 * self.vram_used_bytes / self.vram_total_bytes if self.vram_total_bytes else 0.0


class DiskSample(msgspec.Struct, frozen=True, kw_only=True):
    """The volume that holds the models."""

    path: str
    total_bytes: int
    used_bytes: int
    free_bytes: int

    @property
    def used_pct(self) -> float:
        return 100.0 * self.used_bytes / self.total_bytes if self.total_bytes else 0.0


class MachineSample(msgspec.Struct, frozen=True, kw_only=True):
    """Everything measured in one look. `taken_at` is Unix seconds."""

    host: HostSample
    gpus: tuple[GpuSample, ...] = ()
    disk: DiskSample | None = None
    taken_at: float = 0.0
