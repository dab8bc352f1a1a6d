"""How the machine's resources and its installed games are seen on this system."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tray_valet.core.config import GamesSettings
from tray_valet.core.ports import Clock, GpuSensor, HostSensor, LibraryScanner, PressureNotices
from tray_valet.core.processes import System


def host_sensor(clock: Clock) -> HostSensor:
    """RAM, CPU and disk."""
    from tray_valet.sensing.host import PsutilHost

    return PsutilHost(clock.monotonic_s)


def gpu_sensor(clock: Clock) -> GpuSensor:
    """NVIDIA's GPUs; none is normal."""
    from tray_valet.sensing.nvidia import NvidiaGpus

    return NvidiaGpus(clock.monotonic_s)


def pressure_notices(system: System) -> PressureNotices:
    """The system's own word that memory runs short."""
    if system is System.LINUX:
        from tray_valet.sensing.linux_pressure import LinuxPressure

        return LinuxPressure()
    if system is System.WINDOWS:
        from tray_valet.sensing.windows_pressure import WindowsPressure

        return WindowsPressure()
    from tray_valet.sensing.macos_pressure import MacPressure

    return MacPressure()


class LibraryScanners:
    """The stores' libraries. The scanner is kept while the settings name the same folders: it remembers."""

    def __init__(self, system: System, settings: Callable[[], GamesSettings]) -> None:
        self._system = system
        self._settings = settings
        self._folders: tuple[Path, ...] | None = None
        self._scanner: LibraryScanner | None = None

    def current(self) -> LibraryScanner:
        """The scanner for the settings in force."""
        from tray_valet.sensing.steam import SteamLibraries, discover_roots

        folders = tuple(Path(os.path.expanduser(library.path)) for library in self._settings().libraries)
        if self._scanner is None or folders != self._folders:
            self._folders = folders
            home = Path(os.path.expanduser("~"))  # Path.home() raises where the system knows none
            self._scanner = SteamLibraries(discover_roots(self._system, home), folders)
        return self._scanner
