"""Linux's processes, read raw from /proc.

Decides: what a process is (image, arguments, the few variables that the rules read), who lives, who
listens, what it uses, and that a signal reaches that very process and never one that got its PID later.
Must not: judge whether something is a game, or cache what /proc says (a process may `exec` any time).

Facts: pidfd_open(2), pidfd_send_signal(2), proc(5). Nothing here needs a privilege; what another user's
process hides (its exe, environment and cwd) is left empty.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tray_valet.core.errors import CannotKill
from tray_valet.core.processes import Process, ProcessIdentity, ProcessUsage
from tray_valet.sensing.linux_procfs import (
    ARGV_MAX_BYTES,
    COMM_MAX_BYTES,
    ENV_MAX_BYTES,
    ProcStat,
    exe_at,
    exe_of,
    interesting_env,
    parse_stat,
    read_file,
    read_link,
    split_cmdline,
    stat_of,
    status_sizes,
)
from tray_valet.sensing.linux_sockets import client_inodes, listener_inodes, socket_inodes_of
from tray_valet.sensing.process_images import ImageKey

_EXEC_LOOKS = 4
_EXEC_WAIT_S = 0.0002


class LinuxProcesses:
    """`ProcessTable` over /proc. `start_time` of its identities is in clock ticks since boot."""

    def __init__(self, proc: str = "/proc") -> None:
        """`proc` is where procfs is mounted."""
        self._proc = proc
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")

    # -- who runs --------------------------------------------------------------------------------

    def all_pids(self) -> list[int]:
        """List the PIDs of every process, kernel threads and zombies included."""
        return [int(name) for name in os.listdir(self._proc) if name.isdigit()]

    def describe(self, pid: int) -> Process | None:
        """Describe what runs there now; None for a zombie, a kernel thread, or nothing.

        All parts come from one process even when the PID is reused meanwhile: they are read relative
        to its opened directory.
        """
        with self._opened(pid) as folder:
            if folder is None:
                return None
            stat = stat_of(folder)
            if stat is None or stat.is_kernel_thread or stat.is_dead:
                return None
            exe = exe_of(folder)
            argv_raw, env_raw = _arguments(folder, is_exec_awaited=bool(exe))
            return Process(
                identity=ProcessIdentity(pid, stat.start_time),
                exe=exe,
                argv=split_cmdline(argv_raw),
                env=interesting_env(env_raw),
                parent_pid=stat.parent_pid,
                parent_name=self._name(stat.parent_pid),
                cwd=read_link(folder, "cwd"),
            )

    def glance(self, pid: int) -> ImageKey | None:
        """Tell the image there now, at a third of `describe`'s cost; None as there."""
        with self._opened(pid) as folder:
            if folder is None:
                return None
            stat = stat_of(folder)
            if stat is None or stat.is_kernel_thread or stat.is_dead:
                return None
            argv = split_cmdline(read_file(folder, "cmdline", ARGV_MAX_BYTES))
            return ImageKey(stat.start_time, exe_of(folder), hash(argv))

    def exe(self, pid: int) -> str:
        """Tell the exe there now; "" where it is not told."""
        return exe_at(f"{self._proc}/{pid}/exe")

    def is_alive(self, identity: ProcessIdentity) -> bool:
        """Whether that very process lives (zombies do not)."""
        stat = self._stat_of(identity.pid)
        return stat is not None and stat.start_time == identity.start_time and not stat.is_dead

    def descendants(self, pid: int) -> tuple[ProcessIdentity, ...]:
        """Children, their children and so on, without `pid` itself; parents before children."""
        children: dict[int, list[ProcessIdentity]] = {}
        for other in self.all_pids():
            stat = self._stat_of(other)
            if stat is not None and not stat.is_dead:
                children.setdefault(stat.parent_pid, []).append(ProcessIdentity(other, stat.start_time))
        found: list[ProcessIdentity] = []
        todo = [pid]
        while todo:
            below = children.pop(todo.pop(0), [])  # pop: a PID reused mid-read cannot make a cycle
            found.extend(below)
            todo.extend(child.pid for child in below)
        return tuple(child for child in found if child.pid != pid)

    # -- who listens -----------------------------------------------------------------------------

    def listening_on(self, port: int) -> ProcessIdentity | None:
        """Who listens on that TCP port of loopback or of all addresses; None when unknown.

        A listener shared by forked workers is named after the oldest of them. Other users' sockets
        can only be traced with privilege.
        """
        inodes = listener_inodes(self._proc, port)
        if not inodes:
            return None
        holders: list[tuple[int, int]] = []
        for pid in self.all_pids():
            if not inodes.isdisjoint(socket_inodes_of(self._proc, pid)):
                stat = self._stat_of(pid)
                if stat is not None and not stat.is_dead:
                    holders.append((stat.start_time, pid))
        if not holders:
            return None
        start_time, pid = min(holders)
        return ProcessIdentity(pid, start_time)

    def clients_of(self, port: int) -> tuple[ProcessIdentity, ...]:
        """Who is connected to that TCP port of this machine, but for us; () also when it cannot be told.

        Without a stranger's connection it is one look at the table of sockets; else every process's handles
        are looked through.
        """
        inodes = client_inodes(self._proc, port) - socket_inodes_of(self._proc, os.getpid())
        if not inodes:
            return ()
        found = []
        for pid in self.all_pids():
            if not inodes.isdisjoint(socket_inodes_of(self._proc, pid)):
                stat = self._stat_of(pid)
                if stat is not None and not stat.is_dead:
                    found.append(ProcessIdentity(pid, stat.start_time))
        return tuple(found)

    # -- what it uses ----------------------------------------------------------------------------

    def usage(self, processes: Sequence[ProcessIdentity]) -> ProcessUsage:
        """Memory and CPU of those that still live, added up; a process named twice counts once.

        Memory is RssAnon + RssShmem, so a model file that is only mapped doesn't count; CPU is the
        process's own, without its children's.
        """
        ram_bytes = resident_bytes = ticks = 0
        for identity in set(processes):
            with self._opened(identity.pid) as folder:
                stat = stat_of(folder) if folder is not None else None
                if folder is None or stat is None or stat.is_dead or stat.start_time != identity.start_time:
                    continue
                sizes = status_sizes(read_file(folder, "status", 16384))
                ram_bytes += sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
                resident_bytes += sizes.get("VmRSS", 0)
                ticks += stat.cpu_ticks
        return ProcessUsage(
            ram_bytes=ram_bytes, resident_bytes=resident_bytes, cpu_s=ticks / self._ticks_per_s
        )

    # -- ending it -------------------------------------------------------------------------------

    def terminate(self, identity: ProcessIdentity) -> None:
        """Send SIGTERM. Gone already: fine. Raises CannotKill."""
        self._send(identity, signal.SIGTERM)

    def kill(self, identity: ProcessIdentity) -> None:
        """Send SIGKILL. Gone already: fine. Raises CannotKill."""
        self._send(identity, signal.Signals(9))  # SIGKILL by number: Windows' signal module lacks the name

    def _send(self, identity: ProcessIdentity, what: signal.Signals) -> None:
        if identity.pid <= 1 or identity.pid == os.getpid():
            raise CannotKill(f"Process {identity.pid} is not one that may be ended.")
        try:
            self._send_once(identity, what)
        except ProcessLookupError:
            return  # gone: that is what was wanted
        except PermissionError as error:
            raise CannotKill(
                f"The system does not let us end process {identity.pid}: it runs as another user.",
                remedy=f"End it as that user, or with: sudo kill {identity.pid}",
            ) from error
        except OSError as error:
            raise CannotKill(f"Process {identity.pid} could not be signalled: {error}.") from error

    def _send_once(self, identity: ProcessIdentity, what: signal.Signals) -> None:
        opener = getattr(os, "pidfd_open", None)
        try:
            if opener is None:
                raise OSError(errno.ENOSYS, "no pidfds here")
            handle: int = opener(identity.pid)
        except OSError as error:
            if isinstance(error, (ProcessLookupError, PermissionError)):
                raise
            # No pidfds here (before Linux 5.3, some sandboxes): look and signal, close together.
            if self.is_alive(identity):
                os.kill(identity.pid, what)
            return
        try:
            # Looked at after the handle was taken: if it is that process now, the handle is its.
            if self.is_alive(identity):
                signal.pidfd_send_signal(handle, what)
        finally:
            os.close(handle)

    # -- reading ---------------------------------------------------------------------------------

    @contextmanager
    def _opened(self, pid: int) -> Iterator[int | None]:
        """Hold the process's /proc directory open; None when there is no such process."""
        try:
            folder = os.open(f"{self._proc}/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            yield None
            return
        try:
            yield folder
        finally:
            os.close(folder)

    def _stat_of(self, pid: int) -> ProcStat | None:
        return parse_stat(read_file(None, f"{self._proc}/{pid}/stat", 2048))

    def _name(self, pid: int) -> str:
        """The process's name; the kernel's 15 bytes are completed from its command line."""
        stat = self._stat_of(pid) if pid > 0 else None
        if stat is None:
            return ""
        if len(stat.comm.encode()) >= COMM_MAX_BYTES:
            argv = split_cmdline(read_file(None, f"{self._proc}/{pid}/cmdline", 4096))
            for arg in argv[:2]:  # the second is the script where the first is its interpreter
                name = arg.replace("\\", "/").rpartition("/")[2]
                if name.startswith(stat.comm):
                    return name
        return stat.comm


def _arguments(folder: int, *, is_exec_awaited: bool) -> tuple[bytes, bytes]:
    """Read cmdline and environ. During an exec the new image is there a moment before its arguments,
    and these before its environment: they are waited for, a millisecond at most."""
    argv_raw = read_file(folder, "cmdline", ARGV_MAX_BYTES)
    looks_left = _EXEC_LOOKS if is_exec_awaited else 0
    while not argv_raw and looks_left > 0:
        time.sleep(_EXEC_WAIT_S)
        argv_raw = read_file(folder, "cmdline", ARGV_MAX_BYTES)
        looks_left -= 1
    env_raw = read_file(folder, "environ", ENV_MAX_BYTES)
    if not env_raw and is_exec_awaited:
        env_raw = read_file(folder, "environ", ENV_MAX_BYTES)
    return argv_raw, env_raw
