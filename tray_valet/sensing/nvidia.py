"""Every NVIDIA GPU, through NVML.

Decides: when NVML is open, and how its answers and failures become samples.
Must not: wake a GPU that sleeps, or keep one awake; on a laptop that costs hours of battery.

A query resumes a suspended GPU and an open NVML keeps it from suspending again, so on Linux sysfs
`power/runtime_status` is read first: while every NVIDIA GPU sleeps, NVML is closed and there are no
samples. `let_sleep` gives it back too while it is not needed. Without a driver there are none either, and it
is looked for once a minute.

Facts: NVML API reference (docs.nvidia.com/deploy/nvml-api: memory in bytes, power in milliwatts,
`usedGpuMemory` is not available under WDDM); kernel Documentation/ABI/testing/sysfs-devices-power
(runtime_status, control); NVIDIA's driver README, “PCI-Express Runtime D3 (RTD3) Power Management”; PCI
vendor 0x10de, class 0x03xxxx = display controller. All calls are made in one worker thread at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tray_valet.core.metrics import GpuSample

_log = logging.getLogger(__name__)

_RETRY_S = 60.0
_NVIDIA_VENDOR = "0x10de"
_DISPLAY_CLASS = "0x03"
_ASLEEP = frozenset({"suspended", "suspending"})
# The driver's control node, and the paravirtual GPU of WSL 2, which is on no PCI bus.
_DEVICE_NODES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def import_pynvml() -> Any:
    """Import nvidia-ml-py's module; ImportError where it is not installed."""
    import pynvml

    return pynvml


class NvidiaGpus:
    """`GpuSensor` over NVML."""

    def __init__(
        self,
        monotonic_s: Callable[[], float],
        *,
        load_nvml: Callable[[], Any] = import_pynvml,
        pci_devices: Path = Path("/sys/bus/pci/devices"),
        device_nodes: tuple[Path, ...] = _DEVICE_NODES,
    ) -> None:
        """`monotonic_s` is the clock (seconds); `load_nvml` gives pynvml's module when first needed."""
        self._device_nodes = device_nodes
        self._monotonic_s = monotonic_s
        self._load_nvml = load_nvml
        self._pci_devices = pci_devices
        self._nvml: Any = None  # the module while NVML is open
        self._missing_because: str | None = None
        self._retry_at_s = float("-inf")
        self._lost: set[str] = set()
        self._lock = threading.Lock()

    @property
    def missing_because(self) -> str | None:
        """Why there are no figures (`no NVIDIA driver`), or None."""
        return self._missing_because

    def sample(self) -> tuple[GpuSample, ...]:
        """Measure every GPU that is awake; () without a driver, or while all sleep."""
        with self._lock:
            if self._are_all_asleep():
                self._shut()
                self._missing_because = "the NVIDIA GPU is asleep and is left so"
                return ()
            nvml = self._open()
            if nvml is None:
                return ()
            return self._measure(nvml)

    def let_sleep(self) -> None:
        """Close NVML if that lets a GPU suspend; the next sample opens it again.

        Where none ever suspends it stays open: the driver of a machine without a display may need
        seconds to start a GPU for its first user.
        """
        with self._lock:
            if self._nvml is not None and self._can_one_sleep():
                self._shut()

    def close(self) -> None:
        """Give NVML back, so that the GPU may sleep; a later sample opens it again."""
        with self._lock:
            self._shut()

    # -- opening and closing -------------------------------------------------------------------------

    def _open(self) -> Any:
        if self._nvml is not None:
            return self._nvml
        if self._monotonic_s() < self._retry_at_s:
            return None
        if self._is_certainly_absent():
            return self._miss("no NVIDIA GPU")
        try:
            nvml = self._load_nvml()
        except (ImportError, OSError) as error:
            return self._miss(f"the NVIDIA library for Python cannot be loaded: {error}")
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            return self._miss(_why_missing(nvml, error))
        self._nvml = nvml
        self._missing_because = None
        return nvml

    def _miss(self, reason: str) -> None:
        self._missing_because = reason
        self._retry_at_s = self._monotonic_s() + _RETRY_S

    def _shut(self) -> None:
        nvml, self._nvml = self._nvml, None
        if nvml is None:
            return
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            _log.debug("NVML did not shut down cleanly: %s", error)

    def _is_certainly_absent(self) -> bool:
        """Whether there is no GPU to ask: spares most machines the library, 3.5 MB."""
        if not self._pci_devices.is_dir() or any(node.exists() for node in self._device_nodes):
            return False
        return not list(self._power_states())

    # -- measuring -----------------------------------------------------------------------------------

    def _measure(self, nvml: Any) -> tuple[GpuSample, ...]:
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            # The driver was updated or unloaded under us: begin anew, in a while.
            self._shut()
            self._miss(_why_missing(nvml, error))
            return ()
        asleep = self._asleep_addresses()
        samples = []
        for index in range(count):
            sample = self._measure_one(nvml, index, asleep)
            if sample is not None:
                samples.append(sample)
        if samples:
            self._missing_because = None
        elif self._missing_because is None:
            self._missing_because = "no NVIDIA GPU answers"
        return tuple(samples)

    def _measure_one(self, nvml: Any, index: int, asleep: frozenset[str]) -> GpuSample | None:
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            if asleep and _pci_address(nvml, handle) in asleep:
                return None
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
            name = _text(nvml.nvmlDeviceGetName(handle))
        except nvml.NVMLError as error:
            self._lose(f"GPU {index}", error)
            return None
        self._lost.discard(f"GPU {index}")
        return GpuSample(
            index=index,
            uuid=uuid,
            name=name,
            vram_total_bytes=int(memory.total),
            vram_used_bytes=int(memory.used),
            utilization_pct=_number(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            temperature_c=_number(
                nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            power_w=_number(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000.0),
            process_bytes=_process_bytes(nvml, handle),
        )

    def _lose(self, what: str, error: Exception) -> None:
        """Say once that a GPU does not answer (it fell off the bus, or needs a reset)."""
        if what not in self._lost:
            self._lost.add(what)
            _log.warning("%s does not answer: %s", what, error)
        self._missing_because = f"{what} does not answer: {error}"

    # -- sleep ---------------------------------------------------------------------------------------

    def _are_all_asleep(self) -> bool:
        states = [state for _, state in self._power_states()]
        return bool(states) and all(state in _ASLEEP for state in states)

    def _can_one_sleep(self) -> bool:
        """Whether the kernel may suspend a GPU (power/control is `auto`); yes where it cannot be told."""
        controls = [_line(device / "power" / "control") for device in self._controllers()]
        return not controls or "auto" in controls

    def _asleep_addresses(self) -> frozenset[str]:
        return frozenset(address for address, state in self._power_states() if state in _ASLEEP)

    def _power_states(self) -> Iterable[tuple[str, str]]:
        """(PCI address, runtime_status) of every NVIDIA display controller; empty where there is no sysfs."""
        for device in self._controllers():
            yield device.name.lower(), _line(device / "power" / "runtime_status")

    def _controllers(self) -> Iterable[Path]:
        try:
            devices = sorted(self._pci_devices.iterdir())
        except OSError:
            return
        for device in devices:
            if _line(device / "vendor") != _NVIDIA_VENDOR:
                continue
            if _line(device / "class").startswith(_DISPLAY_CLASS):
                yield device


def _why_missing(nvml: Any, error: Exception) -> str:
    absent = tuple(
        kind
        for name in ("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded")
        if isinstance(kind := getattr(nvml, name, None), type)
    )
    return "no NVIDIA driver" if isinstance(error, absent) else f"the NVIDIA driver does not answer: {error}"


def _process_bytes(nvml: Any, handle: Any) -> dict[int, int] | None:
    """VRAM by PID; a process with both a compute and a graphics context shows the same sum in both lists.

    None where the driver does not tell (Windows, missing permission).
    """
    found: dict[int, int] = {}
    is_withheld = False
    for query in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        try:
            processes = query(handle)
        except nvml.NVMLError:
            is_withheld = True
            continue
        for process in processes:
            if process.usedGpuMemory is None:
                is_withheld = True
            else:
                found[process.pid] = max(found.get(process.pid, 0), int(process.usedGpuMemory))
    return found if found or not is_withheld else None


def _pci_address(nvml: Any, handle: Any) -> str:
    """The address as sysfs writes it; NVML writes the domain with eight digits, sysfs with four."""
    domain, _, rest = _text(nvml.nvmlDeviceGetPciInfo(handle).busId).lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


def _number(nvml: Any, ask: Callable[[], float]) -> float | None:
    try:
        return float(ask())
    except nvml.NVMLError:
        return None  # this board does not tell


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _line(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip().lower()
    except OSError:
        return ""
