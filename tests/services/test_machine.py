"""Machine around sensors in memory: how old a sample may be, and when GPUs are left to sleep."""

from __future__ import annotations

import asyncio
import threading

from tray_valet.core.metrics import DiskSample, GpuSample, HostSample
from tray_valet.services.machine import Machine

HOST = HostSample(ram_total_bytes=32 << 30, ram_available_bytes=16 << 30, cpu_pct=5.0, core_count=8)
GPU = GpuSample(index=0, uuid="GPU-1", name="GPU", vram_total_bytes=8 << 30, vram_used_bytes=1 << 30)


class Clock:
    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1_700_000_000.0 + self.now_s


class Host:
    def __init__(self) -> None:
        self.count = 0

    def sample(self) -> HostSample:
        self.count += 1
        return HOST

    def disk(self, path: str) -> DiskSample:
        return DiskSample(path=path, total_bytes=4, used_bytes=1, free_bytes=3)


class Gpus:
    """A GPU that stays awake from a sample until it is let sleep."""

    missing_because = None

    def __init__(self) -> None:
        self.is_awake = False
        self.threads: set[str] = set()

    def sample(self) -> tuple[GpuSample, ...]:
        self.is_awake = True
        self.threads.add(threading.current_thread().name)
        return (GPU,)

    def let_sleep(self) -> None:
        self.is_awake = False
        self.threads.add(threading.current_thread().name)

    def close(self) -> None:
        raise AssertionError("it is needed again")


def machine(gpus: Gpus, *, is_in_use: bool, clock: Clock | None = None, host: Host | None = None) -> Machine:
    return Machine(host or Host(), gpus, clock or Clock(), lambda: "/models", lambda: is_in_use)


async def test_without_a_model_in_memory_the_gpu_is_measured_and_then_left_to_sleep() -> None:
    gpus = Gpus()
    sample = await machine(gpus, is_in_use=False).sample()
    assert sample.gpus == (GPU,)
    assert not gpus.is_awake


async def test_with_a_model_in_memory_the_sensor_stays_open() -> None:
    gpus = Gpus()
    await machine(gpus, is_in_use=True).sample()
    assert gpus.is_awake


async def test_what_may_block_runs_in_worker_threads() -> None:
    gpus = Gpus()
    await machine(gpus, is_in_use=False).sample()
    assert threading.current_thread().name not in gpus.threads


async def test_many_who_ask_at_once_share_one_measurement() -> None:
    host, clock = Host(), Clock()
    shared = machine(Gpus(), is_in_use=True, clock=clock, host=host)
    await asyncio.gather(*(shared.sample(max_age_s=0.0) for _ in range(20)))
    assert host.count == 1
    clock.now_s += 0.9
    await shared.sample()
    assert host.count == 1
    await shared.sample(max_age_s=0.5)
    assert host.count == 2
