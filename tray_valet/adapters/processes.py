"""How processes are seen and ended on this system."""

from __future__ import annotations

from tray_valet.core.ports import ProcessTable, ProcessWatch
from tray_valet.core.processes import System
from tray_valet.desktop.system import current_system


class ProcessAdapters:
    """One table for everybody, and the watch over it."""

    def __init__(self, system: System) -> None:
        self.table: ProcessTable
        self.watch: ProcessWatch
        if system is System.LINUX:
            from tray_valet.sensing.linux_processes import LinuxProcesses
            from tray_valet.sensing.linux_watch import linux_watch

            linux = LinuxProcesses()
            self.table, self.watch = linux, linux_watch(linux)
            return
        from tray_valet.sensing.portable_watch import portable_watch

        if system is System.WINDOWS:
            from tray_valet.sensing.windows_processes import windows_processes

            portable = windows_processes()
        else:
            from tray_valet.sensing.macos_processes import macos_processes

            portable = macos_processes()
        self.table, self.watch = portable, portable_watch(portable)


def process_table() -> ProcessTable:
    """A table for a look or two, without a watch (whose imports take a tenth of a second on Linux)."""
    if current_system() is System.LINUX:
        from tray_valet.sensing.linux_processes import LinuxProcesses

        return LinuxProcesses()
    return ProcessAdapters(current_system()).table
