# ruff: noqa: N802
"""NvidiaGpus with a stand-in for NVML (no driver can be had here), and with the real library."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tray_valet.sensing.nvidia import NvidiaGpus, import_pynvml

GIB = 1 << 30


class FakeNvml:
    """The part of pynvml that is used, with its behaviour: calls fail before nvmlInit and after the end."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801 - NVML's own name
        pass

    class NVMLError_DriverNotLoaded(NVMLError):  # noqa: N801
        pass

    class NVMLError_GpuIsLost(NVMLError):  # noqa: N801
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801
        pass

    def __init__(self, count: int = 1) -> None:
        self.is_open = False
        self.init_count = 0
        self.init_error: Exception | None = None
        self.count_error: Exception | None = None
        self.lost: set[int] = set()
        self.silent: set[str] = set()
        self.touched: set[int] = set()
        self.compute: list[list[Any]] = [[] for _ in range(count)]
        self.graphics: list[list[Any]] = [[] for _ in range(count)]
        self.buses = [f"00000000:{index + 1:02X}:00.0" for index in range(count)]
        self.is_bytes = False

    def _ask(self, what: str, index: int) -> None:
        if not self.is_open:
            raise self.NVMLError("Uninitialized")
        if what not in ("pci", "handle"):
            self.touched.add(index)
        if index in self.lost:
            raise self.NVMLError_GpuIsLost("GPU is lost")
        if what in self.silent:
            raise self.NVMLError_NotSupported("Not Supported")

    def nvmlInit(self) -> None:
        self.init_count += 1
        if self.init_error is not None:
            raise self.init_error
        self.is_open = True

    def nvmlShutdown(self) -> None:
        if not self.is_open:
            raise self.NVMLError("Uninitialized")
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        if self.count_error is not None:
            raise self.count_error
        return len(self.buses)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._ask("handle", index)
        return index

    def nvmlDeviceGetPciInfo(self, handle: int) -> Any:
        self._ask("pci", handle)
        return SimpleNamespace(busId=self.buses[handle].encode() if self.is_bytes else self.buses[handle])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        self._ask("memory", handle)
        return SimpleNamespace(total=24 * GIB, used=(handle + 1) * GIB, free=0)

    def nvmlDeviceGetUUID(self, handle: int) -> str | bytes:
        return f"GPU-{handle}".encode() if self.is_bytes else f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:
        return b"RTX 4090" if self.is_bytes else "RTX 4090"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        self._ask("utilization", handle)
        return SimpleNamespace(gpu=37, memory=1)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        self._ask("temperature", handle)
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        self._ask("power", handle)
        return 215_400

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        self._ask("processes", handle)
        return self.compute[handle]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[Any]:
        self._ask("processes", handle)
        return self.graphics[handle]


def user(pid: int, used_bytes: int | None) -> Any:
    return SimpleNamespace(pid=pid, usedGpuMemory=used_bytes)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def gpus(nvml: FakeNvml, clock: Clock | None = None, pci: Path = Path("/nonexistent")) -> NvidiaGpus:
    return NvidiaGpus(clock or Clock(), load_nvml=lambda: nvml, pci_devices=pci)


def pci_device(
    pci: Path, address: str, status: str, *, vendor: str = "0x10de", kind: str = "0x030000"
) -> Path:
    power = pci / address / "power"
    power.mkdir(parents=True)
    (pci / address / "vendor").write_text(vendor + "\n")
    (pci / address / "class").write_text(kind + "\n")
    (power / "runtime_status").write_text(status + "\n")
    return power / "runtime_status"


@pytest.mark.parametrize("is_bytes", [False, True])
def test_every_gpu_is_measured_in_bytes_and_watts(is_bytes: bool) -> None:
    nvml = FakeNvml(count=2)
    nvml.is_bytes = is_bytes
    sensor = gpus(nvml)
    first, second = sensor.sample()
    assert (first.index, first.uuid, first.name) == (0, "GPU-0", "RTX 4090")
    assert (first.vram_total_bytes, first.vram_used_bytes) == (24 * GIB, GIB)
    assert (first.utilization_pct, first.temperature_c, first.power_w) == (37.0, 61.0, 215.4)
    assert second.vram_used_bytes == 2 * GIB
    assert sensor.missing_because is None
    assert nvml.init_count == 1
    sensor.sample()
    assert nvml.init_count == 1


def test_compute_and_graphics_lists_are_merged_by_pid() -> None:
    nvml = FakeNvml()
    nvml.compute[0] = [user(10, 4 * GIB), user(11, GIB)]
    nvml.graphics[0] = [user(10, 4 * GIB), user(12, 2 * GIB)]
    (sample,) = gpus(nvml).sample()
    assert sample.process_bytes == {10: 4 * GIB, 11: GIB, 12: 2 * GIB}


def test_a_driver_that_does_not_tell_processes_says_none_not_nothing() -> None:
    nvml = FakeNvml()
    assert gpus(nvml).sample()[0].process_bytes == {}
    nvml.graphics[0] = [user(10, None)]  # Windows' WDDM
    assert gpus(nvml).sample()[0].process_bytes is None
    nvml.graphics[0] = []
    nvml.silent = {"processes"}
    assert gpus(nvml).sample()[0].process_bytes is None


def test_what_a_board_does_not_measure_is_none() -> None:
    nvml = FakeNvml()
    nvml.silent = {"utilization", "temperature", "power"}
    (sample,) = gpus(nvml).sample()
    assert (sample.utilization_pct, sample.temperature_c, sample.power_w) == (None, None, None)


@pytest.mark.parametrize("kind", ["NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded"])
def test_without_a_driver_there_is_nothing_and_it_is_looked_for_once_a_minute(kind: str) -> None:
    nvml, clock = FakeNvml(), Clock()
    nvml.init_error = getattr(FakeNvml, kind)("gone")
    sensor = gpus(nvml, clock)
    assert sensor.sample() == ()
    assert sensor.missing_because == "no NVIDIA driver"
    clock.now_s += 59
    assert sensor.sample() == ()
    assert nvml.init_count == 1
    nvml.init_error = None
    clock.now_s += 1
    assert len(sensor.sample()) == 1
    assert sensor.missing_because is None


def test_a_driver_that_goes_away_is_looked_for_again_later() -> None:
    nvml, clock = FakeNvml(), Clock()
    sensor = gpus(nvml, clock)
    sensor.sample()
    nvml.count_error = FakeNvml.NVMLError("Driver/library version mismatch")
    assert sensor.sample() == ()
    assert "version mismatch" in (sensor.missing_because or "")
    assert not nvml.is_open
    nvml.count_error = None
    clock.now_s += 60
    assert len(sensor.sample()) == 1


def test_a_lost_gpu_is_left_out_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    nvml = FakeNvml(count=2)
    sensor = gpus(nvml)
    nvml.lost = {0}
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        assert [sample.index for sample in sensor.sample()] == [1]
    assert len(caplog.records) == 1
    nvml.lost = {0, 1}
    assert sensor.sample() == ()
    assert "does not answer" in (sensor.missing_because or "")
    nvml.lost = set()
    assert len(sensor.sample()) == 2
    assert sensor.missing_because is None


def test_a_missing_library_for_python_is_said() -> None:
    def refuse() -> Any:
        raise ImportError("No module named 'pynvml'")

    sensor = NvidiaGpus(Clock(), load_nvml=refuse, pci_devices=Path("/nonexistent"))
    assert sensor.sample() == ()
    assert "pynvml" in (sensor.missing_because or "")


def test_closing_gives_nvml_back_and_a_later_sample_takes_it_again() -> None:
    nvml = FakeNvml()
    sensor = gpus(nvml)
    sensor.sample()
    sensor.close()
    assert not nvml.is_open
    sensor.close()
    assert len(sensor.sample()) == 1
    assert nvml.init_count == 2


@pytest.mark.parametrize(
    ("controls", "is_kept_open"),
    [
        (["auto"], False),
        (["on"], True),  # it never suspends: nothing is won by closing
        (["on", "auto"], False),
        ([], False),  # no sysfs, or another system: it cannot be told
    ],
)
def test_nvml_is_given_back_where_that_lets_a_gpu_sleep(
    controls: list[str], is_kept_open: bool, tmp_path: Path
) -> None:
    for number, control in enumerate(controls, start=1):
        status = pci_device(tmp_path, f"0000:0{number}:00.0", "active")
        (status.parent / "control").write_text(f"{control}\n")
    nvml = FakeNvml(count=max(1, len(controls)))
    sensor = gpus(nvml, pci=tmp_path if controls else tmp_path / "missing")
    sensor.let_sleep()  # nothing is open yet
    assert sensor.sample()
    sensor.let_sleep()
    assert nvml.is_open == is_kept_open
    assert sensor.sample()
    assert nvml.init_count == (1 if is_kept_open else 2)


def test_a_sleeping_gpu_is_not_woken_and_nvml_not_kept_open(tmp_path: Path) -> None:
    status = pci_device(tmp_path, "0000:01:00.0", "suspended")
    pci_device(tmp_path, "0000:00:02.0", "active", vendor="0x8086")
    pci_device(tmp_path, "0000:01:00.1", "active", kind="0x040300")  # its sound device
    nvml = FakeNvml()
    sensor = gpus(nvml, pci=tmp_path)
    assert sensor.sample() == ()
    assert nvml.init_count == 0
    assert "asleep" in (sensor.missing_because or "")
    status.write_text("active\n")
    assert len(sensor.sample()) == 1
    assert sensor.missing_because is None
    status.write_text("suspended\n")
    assert sensor.sample() == ()
    assert not nvml.is_open


def test_of_two_gpus_only_the_one_that_is_awake_is_asked(tmp_path: Path) -> None:
    pci_device(tmp_path, "0000:01:00.0", "suspended")
    pci_device(tmp_path, "0000:02:00.0", "active")
    nvml = FakeNvml(count=2)
    assert [sample.index for sample in gpus(nvml, pci=tmp_path).sample()] == [1]
    assert nvml.touched == {1}


def test_a_machine_without_such_a_gpu_is_spared_the_library(tmp_path: Path) -> None:
    pci_device(tmp_path, "0000:00:02.0", "active", vendor="0x8086")

    def refuse() -> Any:
        raise AssertionError("not to be loaded")

    sensor = NvidiaGpus(Clock(), load_nvml=refuse, pci_devices=tmp_path, device_nodes=())
    assert sensor.sample() == ()
    assert sensor.missing_because == "no NVIDIA GPU"


def test_the_real_library_answers_or_says_why_not() -> None:
    sensor = NvidiaGpus(Clock(), load_nvml=import_pynvml, pci_devices=Path("/nonexistent"))
    samples = sensor.sample()
    assert (samples == ()) == (sensor.missing_because is not None)
    if not Path("/dev/nvidiactl").exists() and not Path("/dev/dxg").exists():
        assert sensor.missing_because == "no NVIDIA driver"
    for sample in samples:
        assert 0 < sample.vram_used_bytes <= sample.vram_total_bytes
    sensor.close()
