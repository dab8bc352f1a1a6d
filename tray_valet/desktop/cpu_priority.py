"""Puts a running process at idle CPU and I/O priority, and back, the way each system can do it.

Decides: the method. Must not: decide when (a game's begin and end do), or touch processes it is not told of.

| system  | method |
|---------|--------|
| Linux   | SCHED_IDLE and the idle I/O class for every thread, nice 19 for its autogroup |
| macOS   | PRIO_DARWIN_BG: throttled CPU, disk and network |
| Windows | IDLE_PRIORITY_CLASS and the very low I/O priority |

Sources: sched(7) (leaving SCHED_IDLE needs RLIMIT_NICE, so a usual user may not; with autogroups a session
is weighed against others by the group's own nice value alone), ioprio_set(2); setpriority(2) and
sys/resource.h of macOS; learn.microsoft.com, “SetPriorityClass”; psutil's `nice` and `ionice`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from tray_valet.core.errors import NotSupported
from tray_valet.core.ports import CpuPriority

_PRIO_DARWIN_PROCESS = 4
_PRIO_DARWIN_BG = 0x1000
_NORMAL_AUTOGROUP, _IDLE_AUTOGROUP = 0, 19
_ROUNDS = 3  # threads may start while others are being changed


def system_cpu_priority() -> CpuPriority:
    """Return the way of this system."""
    if sys.platform == "win32":
        return WindowsCpuPriority()
    return DarwinCpuPriority() if sys.platform == "darwin" else LinuxCpuPriority()


class LinuxCpuPriority:
    """By thread: what a process is told on Linux counts for its first thread alone."""

    def lower(self, pid: int) -> None:
        """Put every thread at idle priority. Gone: fine. Raises NotSupported."""
        self._each_thread(pid, os.SCHED_IDLE, is_idle=True)
        _set_autogroup(pid, _IDLE_AUTOGROUP)

    def restore(self, pid: int) -> None:
        """Put every thread back. Gone: fine. Raises NotSupported where the user may not."""
        self._each_thread(pid, os.SCHED_OTHER, is_idle=False)
        _set_autogroup(pid, _NORMAL_AUTOGROUP)

    def _each_thread(self, pid: int, policy: int, *, is_idle: bool) -> None:
        done: set[int] = set()
        for _ in range(_ROUNDS):
            new = [tid for tid in _threads(pid) if tid not in done]
            if not new:
                return
            for tid in new:
                with _translated(pid):
                    os.sched_setscheduler(tid, policy, os.sched_param(0))
                _set_io_class(tid, is_idle=is_idle)
                done.add(tid)


class DarwinCpuPriority:
    """PRIO_DARWIN_BG for the whole process."""

    def lower(self, pid: int) -> None:
        """Put it in the background. Gone: fine. Raises NotSupported."""
        self._set(pid, _PRIO_DARWIN_BG)

    def restore(self, pid: int) -> None:
        """Take it out of the background. Gone: fine. Raises NotSupported."""
        self._set(pid, 0)

    def _set(self, pid: int, priority: int) -> None:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        if library.setpriority(_PRIO_DARWIN_PROCESS, pid, priority) != 0:
            number = ctypes.get_errno()
            with _translated(pid):
                raise OSError(number, os.strerror(number))


class WindowsCpuPriority:
    """Priority class and I/O priority of the process."""

    def lower(self, pid: int) -> None:
        """Put it at idle priority. Gone: fine. Raises NotSupported."""
        self._set(pid, "IDLE_PRIORITY_CLASS", "IOPRIO_VERYLOW")

    def restore(self, pid: int) -> None:
        """Put it back. Gone: fine. Raises NotSupported."""
        self._set(pid, "NORMAL_PRIORITY_CLASS", "IOPRIO_NORMAL")

    def _set(self, pid: int, priority_class: str, io_priority: str) -> None:
        import psutil

        names: dict[str, Any] = vars(psutil)  # these exist on Windows alone
        try:
            process = psutil.Process(pid)
            process.nice(names[priority_class])
            process.ionice(names[io_priority])
        except psutil.NoSuchProcess:
            return
        except (psutil.Error, OSError, ValueError) as error:
            raise _refused(pid) from error


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _set_io_class(tid: int, *, is_idle: bool) -> None:
    """The idle I/O class, or none (then it follows the CPU's); a system without such classes does without."""
    import psutil

    names: dict[str, Any] = vars(psutil)  # these exist on Linux and Windows alone
    wanted = names.get("IOPRIO_CLASS_IDLE" if is_idle else "IOPRIO_CLASS_NONE")
    if wanted is not None:
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            psutil.Process(tid).ionice(wanted)


def _set_autogroup(pid: int, nice: int) -> None:
    """Weigh its session against others; absent where the kernel has no autogroups."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as file:
        file.write(str(nice))


@contextlib.contextmanager
def _translated(pid: int) -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        return
    except OSError as error:
        raise _refused(pid) from error


def _refused(pid: int) -> NotSupported:
    return NotSupported(f"The system does not let the priority of process {pid} be changed.")
