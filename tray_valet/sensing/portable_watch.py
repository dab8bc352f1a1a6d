"""The watch over processes where only polling serves: Windows, macOS and others.

Decides: the sources there. Must not: hold any logic of its own.
"""

from __future__ import annotations

from tray_valet.sensing.portable_processes import PortableProcesses
from tray_valet.sensing.process_exits import PolledExits
from tray_valet.sensing.process_poll import PollSource
from tray_valet.sensing.process_watch import SourcedWatch


def portable_watch(table: PortableProcesses, *, sweep_every_s: float = 10.0) -> SourcedWatch:
    """Build the watch: the list of PIDs at 4 Hz, exits by a look at the few followed ones."""
    return SourcedWatch(table, [PollSource(table.all_pids)], PolledExits(table), sweep_every_s=sweep_every_s)
