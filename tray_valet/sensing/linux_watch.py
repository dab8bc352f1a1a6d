"""The watch over processes as it is put together on Linux.

Decides: which sources are tried and in which order. Must not: hold any logic of its own.
"""

from __future__ import annotations

from tray_valet.sensing.linux_processes import LinuxProcesses
from tray_valet.sensing.proc_connector import ProcConnector
from tray_valet.sensing.process_exits import PidfdExits
from tray_valet.sensing.process_poll import LastPidGate, PollSource
from tray_valet.sensing.process_sources import StartSource
from tray_valet.sensing.process_watch import SourcedWatch


def linux_watch(
    table: LinuxProcesses, *, is_connector_tried: bool = True, sweep_every_s: float = 10.0
) -> SourcedWatch:
    """Build the watch: the proc connector where it works, else the gated poll; exits by pidfd."""
    poll = PollSource(table.all_pids, open_gate=LastPidGate, is_rota=True)
    sources: list[StartSource] = [ProcConnector(), poll] if is_connector_tried else [poll]
    return SourcedWatch(table, sources, PidfdExits(table), sweep_every_s=sweep_every_s)
