"""Ties the life of our child processes to ours, the way each system can do it.

Decides: the method. Must not: start or end a process itself (whoever uses a tie does).

| system  | tie |
|---------|-----|
| Linux   | PR_SET_PDEATHSIG, set by `setpriv` (2 ms) or a Python launcher (20 ms) that becomes the command |
| Windows | a Job Object that kills its processes when the last handle to it, ours, is closed |
| macOS   | the launcher leaves a watcher behind that waits in kqueue for the end of either process |

On Linux the kernel acts when the *thread* that forked ends: start children from the loop's thread, which
lives as long as the valet. The tie is not inherited by the child's own children.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tray_valet.core.ports import ChildTie

FROZEN_LAUNCHER_ARGUMENT = "child-launcher"  # the packaged program's hidden command for child_launcher.py
_PROBE_TIMEOUT_S = 2.0
# $0 is our process ID. Another parent means that we died before the tie was made.
_SHELL_STEP = '[ "$PPID" = "$0" ] || exit 125; exec "$@"'
# Beside that: the session's own weight, where the kernel has autogroups (sched(7)). `$$` becomes the command.
_SHELL_STEP_IN_BACKGROUND = (
    '[ "$PPID" = "$0" ] || exit 125; (echo 19 >/proc/$$/autogroup) 2>/dev/null; exec "$@"'
)


def system_child_tie() -> ChildTie:
    """Return the tie for this system."""
    if sys.platform == "win32":
        return WindowsChildTie()
    return WatcherChildTie() if sys.platform == "darwin" else LinuxChildTie()


class LinuxChildTie:
    """PR_SET_PDEATHSIG: the kernel sends SIGKILL to the child when the starting thread is gone."""

    def __init__(self, *, may_use_setpriv: bool = True) -> None:
        self._may_use_setpriv = may_use_setpriv
        self._prefix: tuple[str, ...] | None = None
        self._idle_prefix: tuple[str, ...] | None = None

    def wrap(self, argv: Sequence[str], *, is_in_background: bool = False) -> list[str]:
        """The command to start instead of `argv`. The first call may take some milliseconds."""
        if is_in_background:
            return self._wrap_in_background(argv)
        if self._prefix is None:
            self._prefix = self._setpriv_prefix(_SHELL_STEP, ()) or (*_launcher(), "prctl")
        return [*self._prefix, str(os.getpid()), *argv]

    def _wrap_in_background(self, argv: Sequence[str]) -> list[str]:
        """SCHED_IDLE and the idle I/O class, kept over exec: by util-linux's tools, or by the launcher."""
        chrt, ionice = shutil.which("chrt"), shutil.which("ionice")
        priority = (chrt, "--idle", "0", ionice, "-c", "3") if chrt and ionice else ()
        if self._idle_prefix is None:
            by_tools = self._setpriv_prefix(_SHELL_STEP_IN_BACKGROUND, priority) if priority else None
            self._idle_prefix = by_tools or (*_launcher(), "prctl+idle")
        is_by_tools = self._idle_prefix[-1] == _SHELL_STEP_IN_BACKGROUND
        return [*self._idle_prefix, str(os.getpid()), *(priority if is_by_tools else ()), *argv]

    def adopt(self, pid: int) -> None:
        """Nothing is left to do after the start."""

    def _setpriv_prefix(self, step: str, before: tuple[str, ...]) -> tuple[str, ...] | None:
        """The quick way, if util-linux's setpriv is here; BusyBox's lacks the option, so it is tried."""
        setpriv, shell = shutil.which("setpriv"), shutil.which("sh")
        if not (self._may_use_setpriv and setpriv and shell):
            return None
        prefix = (setpriv, "--pdeathsig", "KILL", "--", shell, "-c", step)
        try:
            trial = [*prefix, str(os.getpid()), *before, "true"]
            subprocess.run(
                trial,
                check=True,
                capture_output=True,
                timeout=_PROBE_TIMEOUT_S,
                start_new_session=True,  # the session's weight that it may change must not be ours
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return prefix


class WatcherChildTie:
    """A small process beside each child that ends it after us. For systems without a kernel tie."""

    def wrap(self, argv: Sequence[str], *, is_in_background: bool = False) -> list[str]:
        """The command to start instead of `argv`."""
        method = "watcher+idle" if is_in_background else "watcher"
        return [*_launcher(), method, str(os.getpid()), *argv]

    def adopt(self, pid: int) -> None:
        """Nothing is left to do after the start."""


class WindowsChildTie:
    """A Job Object with JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE; our handle closes with our process.

    Source: learn.microsoft.com, “Job Objects” and “JOBOBJECT_EXTENDED_LIMIT_INFORMATION”.
    """

    def __init__(self) -> None:
        self._job: int | None = None

    def wrap(self, argv: Sequence[str], *, is_in_background: bool = False) -> list[str]:
        """The command as it is: the job takes the child in after its start, and a priority is not given
        by a command here."""
        return list(argv)

    def adopt(self, pid: int) -> None:
        """Take the child into the job. Raises OSError; the caller then ends the child."""
        kernel = _kernel32()
        if self._job is None:
            self._job = _new_job(kernel)
        process = kernel.OpenProcess(_PROCESS_SET_QUOTA | _PROCESS_TERMINATE, False, pid)
        if not process:
            raise _last_error("OpenProcess")
        try:
            if not kernel.AssignProcessToJobObject(self._job, process):
                raise _last_error("AssignProcessToJobObject")
        finally:
            kernel.CloseHandle(process)


def _launcher() -> tuple[str, ...]:
    """The start of a launcher's command line. -I -S: isolated and without site, for speed."""
    if getattr(sys, "frozen", False):
        return (sys.executable, FROZEN_LAUNCHER_ARGUMENT)
    return (sys.executable, "-I", "-S", str(Path(__file__).with_name("child_launcher.py")))


# -- Windows: winnt.h, jobapi2.h ---------------------------------------------------------------------

_PROCESS_TERMINATE = 0x0001
_PROCESS_SET_QUOTA = 0x0100
_JOB_OBJECT_EXTENDED_LIMIT_INFORMATION = 9  # JOBOBJECTINFOCLASS
_JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000


def _kernel32() -> Any:
    import ctypes
    from ctypes import wintypes

    library: Any = vars(ctypes)["WinDLL"]("kernel32", use_last_error=True)
    library.CreateJobObjectW.restype = wintypes.HANDLE
    library.CreateJobObjectW.argtypes = (wintypes.LPVOID, wintypes.LPCWSTR)
    library.SetInformationJobObject.restype = wintypes.BOOL
    library.SetInformationJobObject.argtypes = (
        wintypes.HANDLE,
        ctypes.c_int,
        wintypes.LPVOID,
        wintypes.DWORD,
    )
    library.OpenProcess.restype = wintypes.HANDLE
    library.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    library.AssignProcessToJobObject.restype = wintypes.BOOL
    library.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
    library.CloseHandle.argtypes = (wintypes.HANDLE,)
    return library


def job_limits() -> Any:
    """A JOBOBJECT_EXTENDED_LIMIT_INFORMATION (144 bytes on 64-bit systems) with the kill-on-close flag."""
    import ctypes

    class BasicLimits(ctypes.Structure):
        _fields_ = (
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", ctypes.c_uint32),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", ctypes.c_uint32),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", ctypes.c_uint32),
            ("SchedulingClass", ctypes.c_uint32),
        )

    class ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("BasicLimitInformation", BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),  # IO_COUNTERS
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        )

    limits = ExtendedLimits()
    limits.BasicLimitInformation.LimitFlags = _JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
    return limits


def _new_job(kernel: Any) -> int:
    import ctypes

    job = kernel.CreateJobObjectW(None, None)
    if not job:
        raise _last_error("CreateJobObjectW")
    limits = job_limits()
    if not kernel.SetInformationJobObject(
        job, _JOB_OBJECT_EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
    ):
        raise _last_error("SetInformationJobObject")
    return int(job)


def _last_error(call: str) -> OSError:
    import ctypes

    number = vars(ctypes)["get_last_error"]()
    return OSError(number, f"{call} failed with error {number}")
