"""Processes through psutil, for systems without /proc.

Decides: the same answers as on Linux, from psutil's harmless calls only.
Must not: call psutil's cmdline, cwd, environ, memory_maps, open_files or memory_full_info on anybody's
process: on Windows they open handles that anti-cheat software watches. What the system tells without
them (the command line, a stable start time) comes from a `SystemReader`.

psutil is imported when the table is made, not with this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from tray_valet.core.addresses import is_loopback_host
from tray_valet.core.errors import CannotKill
from tray_valet.core.processes import Process, ProcessIdentity, ProcessUsage
from tray_valet.sensing.process_images import ImageKey

if TYPE_CHECKING:
    import psutil

_MICROSECONDS = 1_000_000  # start times are in microseconds since the epoch


class SystemReader(Protocol):
    """What each system must be asked for directly. None or () where it does not tell."""

    def argv(self, pid: int) -> tuple[str, ...]: ...

    def parent_pid(self, pid: int) -> int | None: ...

    def start_time(self, pid: int) -> int | None:
        """Microseconds since the epoch, the same for the whole life of the process."""
        ...

    def marks(self, exe: str) -> dict[str, str]:
        """What the system says of the program itself; given on as `Process.env`."""
        ...


class PsutilOnly:
    """`SystemReader` that leaves everything to psutil's harmless calls."""

    def argv(self, pid: int) -> tuple[str, ...]:
        """Not told without the calls that are forbidden."""
        return ()

    def parent_pid(self, pid: int) -> int | None:
        """Left to psutil."""
        return None

    def start_time(self, pid: int) -> int | None:
        """Left to psutil."""
        return None

    def marks(self, exe: str) -> dict[str, str]:
        """Nothing is known."""
        return {}


class PortableProcesses:
    """`ProcessTable` over psutil. `start_time` of its identities is in microseconds since the epoch."""

    def __init__(self, reader: SystemReader | None = None) -> None:
        import psutil

        self._psutil: ModuleType = psutil
        self._gone: type[Exception] = psutil.NoSuchProcess  # a zombie is one of these too
        self._denied: type[Exception] = psutil.AccessDenied
        self._reader = reader if reader is not None else PsutilOnly()

    # -- who runs --------------------------------------------------------------------------------

    def all_pids(self) -> list[int]:
        """List the PIDs of every process."""
        pids: list[int] = self._psutil.pids()
        return pids

    def describe(self, pid: int) -> Process | None:
        """Describe what runs there now; None for a zombie or nothing.

        No environment is read; `env` holds only the reader's marks.
        """
        process = self._living(pid)
        if process is None:
            return None
        start_time = self._start_time(process)
        if start_time is None:
            return None
        parent_pid = self._parent_pid(process)
        exe = self._exe(process)
        return Process(
            identity=ProcessIdentity(pid, start_time),
            exe=exe,
            argv=self._reader.argv(pid),
            env=self._reader.marks(exe),
            parent_pid=parent_pid,
            parent_name=self._name(parent_pid),
        )

    def glance(self, pid: int) -> ImageKey | None:
        """Tell the image there now; the arguments are not looked at."""
        process = self._living(pid)
        start_time = self._start_time(process) if process is not None else None
        if process is None or start_time is None:
            return None
        return ImageKey(start_time, self._exe(process), None)

    def exe(self, pid: int) -> str:
        """Tell the exe there now; "" where it is not told."""
        process = self._living(pid)
        return self._exe(process) if process is not None else ""

    def is_alive(self, identity: ProcessIdentity) -> bool:
        """Whether that very process lives (zombies do not)."""
        return self._same(identity) is not None

    def descendants(self, pid: int) -> tuple[ProcessIdentity, ...]:
        """Children, their children and so on, without `pid` itself."""
        root = self._living(pid)
        if root is None:
            return ()
        try:
            below = root.children(recursive=True)
        except (self._gone, self._denied):
            return ()
        found = []
        for process in below:
            start_time = self._start_time(process) if not self._is_zombie(process) else None
            if start_time is not None:
                found.append(ProcessIdentity(process.pid, start_time))
        return tuple(found)

    # -- who listens, what it uses ---------------------------------------------------------------

    def listening_on(self, port: int) -> ProcessIdentity | None:
        """Who listens on that TCP port of loopback or of all addresses; None when unknown.

        Where only an administrator may list all sockets (macOS), our own user's processes are asked.
        """
        found = []
        for pid, address in self._listeners(port):
            process = self._living(pid)
            start_time = self._start_time(process) if process is not None else None
            if start_time is not None and _is_reached_by_loopback(address):
                is_wildcard = address in ("0.0.0.0", "::", "*", "")
                found.append((is_wildcard, start_time, pid))
        if not found:
            return None
        _, start_time, pid = min(found)
        return ProcessIdentity(pid, start_time)

    def clients_of(self, port: int) -> tuple[ProcessIdentity, ...]:
        """Who is connected to that TCP port of this machine, but for us; () also when it cannot be told."""
        rows = [
            (pid, row)
            for pid, row in self._tcp_rows()
            if row.status == self._psutil.CONN_ESTABLISHED and row.laddr and row.raddr
        ]
        # A caller may have used another address of this machine: then the other end is listed too.
        answering = {_plain(row.laddr.ip) for _, row in rows if row.laddr.port == port}
        found: dict[int, ProcessIdentity] = {}
        for pid, row in rows:
            if row.raddr.port != port or not pid or pid == os.getpid() or pid in found:
                continue
            if not is_loopback_host(row.raddr.ip) and _plain(row.raddr.ip) not in answering:
                continue
            process = self._living(pid)
            start_time = self._start_time(process) if process is not None else None
            if start_time is not None:
                found[pid] = ProcessIdentity(pid, start_time)
        return tuple(found.values())

    def usage(self, processes: Sequence[ProcessIdentity]) -> ProcessUsage:
        """Memory and CPU of those that still live, added up; a process named twice counts once.

        Without mapped files where psutil tells them apart: private bytes on Windows (never more than
        what is resident), resident less shared where `shared` is told.
        """
        ram_bytes = resident_bytes = 0
        cpu_s = 0.0
        for identity in set(processes):
            process = self._same(identity)
            if process is None:
                continue
            try:
                memory = process.memory_info()
                times = process.cpu_times()
            except (self._gone, self._denied):
                continue
            resident_bytes += memory.rss
            private = getattr(memory, "private", None)
            if private is not None:
                ram_bytes += min(memory.rss, private)
            else:
                ram_bytes += max(0, memory.rss - getattr(memory, "shared", 0))
            cpu_s += times.user + times.system
        return ProcessUsage(ram_bytes=ram_bytes, resident_bytes=resident_bytes, cpu_s=cpu_s)

    # -- ending it -------------------------------------------------------------------------------

    def terminate(self, identity: ProcessIdentity) -> None:
        """Ask it to end (on Windows there is no asking: it ends). Gone: fine. Raises CannotKill."""
        self._end(identity, lambda process: process.terminate())

    def kill(self, identity: ProcessIdentity) -> None:
        """End it at once. Gone already: fine. Raises CannotKill."""
        self._end(identity, lambda process: process.kill())

    def _end(self, identity: ProcessIdentity, how: Callable[[psutil.Process], None]) -> None:
        if identity.pid <= 4 or identity.pid == os.getpid():  # 0, 1 and 4 are the system itself
            raise CannotKill(f"Process {identity.pid} is not one that may be ended.")
        process = self._same(identity)
        if process is None:
            return
        try:
            how(process)  # psutil looks at the start time once more before it acts
        except self._gone:
            return
        except self._denied as error:
            raise CannotKill(
                f"The system does not let us end process {identity.pid}: it runs as another user.",
                remedy="End it as that user, or as an administrator.",
            ) from error

    # -- psutil, with its errors translated --------------------------------------------------------

    def _living(self, pid: int) -> psutil.Process | None:
        try:
            process: psutil.Process = self._psutil.Process(pid)
        except (self._gone, self._denied, ValueError, OverflowError):
            return None
        return None if self._is_zombie(process) else process

    def _is_zombie(self, process: psutil.Process) -> bool:
        if self._psutil.WINDOWS:
            return False  # there are none, and `status` is dear there
        try:
            return bool(process.status() == self._psutil.STATUS_ZOMBIE)
        except self._gone:
            return True
        except self._denied:
            return False

    def _same(self, identity: ProcessIdentity) -> psutil.Process | None:
        process = self._living(identity.pid)
        if process is None or self._start_time(process) != identity.start_time:
            return None
        return process

    def _start_time(self, process: psutil.Process) -> int | None:
        told = self._reader.start_time(process.pid)
        if told is not None:
            return told
        try:
            return round(process.create_time() * _MICROSECONDS)
        except (self._gone, self._denied):
            return None

    def _exe(self, process: psutil.Process) -> str:
        try:
            return process.exe() or ""
        except (self._gone, self._denied, OSError):
            return ""

    def _parent_pid(self, process: psutil.Process) -> int:
        told = self._reader.parent_pid(process.pid)
        if told is not None:
            return told
        try:
            return process.ppid()
        except (self._gone, self._denied):
            return 0

    def _name(self, pid: int) -> str:
        process = self._living(pid) if pid > 0 else None
        if process is None:
            return ""
        exe = self._exe(process)
        if exe:
            return exe.replace("\\", "/").rpartition("/")[2]
        try:
            return process.name()
        except (self._gone, self._denied):
            return ""

    def _listeners(self, port: int) -> list[tuple[int, str]]:
        """(PID, address) of whoever listens on the port."""
        return [
            (pid, row.laddr.ip)
            for pid, row in self._tcp_rows()
            if pid and row.status == self._psutil.CONN_LISTEN and row.laddr and row.laddr.port == port
        ]

    def _tcp_rows(self) -> list[tuple[int | None, Any]]:
        """(PID, socket) of every TCP socket that may be listed: psutil's `sconn` and `pconn`."""
        try:
            return [(row.pid, row) for row in self._psutil.net_connections(kind="tcp")]
        except self._denied:
            rows: list[tuple[int | None, Any]] = []
            for process in self._psutil.process_iter():
                try:
                    rows.extend((process.pid, row) for row in process.net_connections(kind="tcp"))
                except (self._gone, self._denied):
                    continue
            return rows


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")


def _is_reached_by_loopback(address: str) -> bool:
    return is_loopback_host(address) or _plain(address) in ("0.0.0.0", "::", "*", "")
