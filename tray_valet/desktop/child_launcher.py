"""Ties itself to the life of the process that started it, and then becomes the command it was given.

    python -I -S child_launcher.py prctl|watcher[+idle] PARENT_PID COMMAND…

With `+idle` the command runs at idle CPU and I/O priority, which exec keeps.

Decides: nothing but how the tie is made (`child_tie.py` chooses the method).
Must not: import the rest of the product or anything slow; this runs before every model. The process ID
stays the same: what the parent started is, in the end, the command.

Sources: sched(7) and ioprio_set(2), with the numbers of linux/ioprio.h and asm/unistd.h; setpriority(2) and
sys/resource.h of macOS (PRIO_DARWIN_BG); prctl(2) on PR_SET_PDEATHSIG (kept over execve, unless that is
set-user-ID); kqueue(2) on EVFILT_PROC and NOTE_EXIT; the Python documentation of `select` and of
`os.pidfd_open`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PARENT_IS_GONE = 125  # exit codes as env(1) and nohup(1) have them
_CANNOT_EXECUTE = 126
_NOT_FOUND = 127
_LOOK_S = 0.5
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "i686": 289, "armv7l": 314}  # by machine
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13  # class 3, without data
_PRIO_DARWIN_PROCESS = 4
_PRIO_DARWIN_BG = 0x1000


def main(argv: list[str]) -> int:
    """Make the tie and exec the command; return an exit code only if that fails."""
    (method, _, priority), parent_pid, command = argv[0].partition("+"), int(argv[1]), argv[2:]
    if priority == "idle":
        _step_back()
    if method == "prctl":
        _die_with_parent()
    else:
        _start_watcher(parent_pid)
    if os.getppid() != parent_pid:  # it died before the tie was made
        return _PARENT_IS_GONE
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"error: cannot start {command[0]}: {error.strerror}\n")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_EXECUTE


def _step_back() -> None:
    """Go to idle CPU and I/O priority as far as the system has it; a command that cannot still runs."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        library.setpriority(_PRIO_DARWIN_PROCESS, 0, _PRIO_DARWIN_BG)
        return
    system: Any = os
    try:
        system.sched_setscheduler(0, system.SCHED_IDLE, system.sched_param(0))
        with open("/proc/self/autogroup", "w", encoding="ascii") as file:
            file.write("19")
    except (AttributeError, OSError):
        pass
    if number := _IOPRIO_SET.get(os.uname().machine):
        library.syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)


def _die_with_parent() -> None:
    """Let the kernel kill us with the parent. It counts the *thread* that started us as the parent."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def _start_watcher(parent_pid: int) -> None:
    """Leave a process behind that ends us when the parent is gone, and itself when we are."""
    us = os.getpid()
    child = os.fork()
    if child:
        os.waitpid(child, 0)  # forked twice, so that the command gets no child that it doesn't know
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    _let_go_of_files()
    _watch(parent_pid, us)
    os._exit(0)


def _let_go_of_files() -> None:
    """Close what was inherited: a pipe held open here would hide the command's end from its reader."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.closerange(3, 256)


def _watch(parent_pid: int, command_pid: int) -> None:
    """Wait for the first of the two to end; if it is the parent, kill the command."""
    first = _first_exit((parent_pid, command_pid))
    if first == parent_pid:
        os.kill(command_pid, signal.SIGKILL)


def _first_exit(pids: tuple[int, int]) -> int:
    """Wait without polling where the system can do that; else look every half second."""
    system: Any = select
    if hasattr(select, "kqueue"):
        return _first_exit_kqueue(system, pids)
    if hasattr(os, "pidfd_open"):
        return _first_exit_pidfd(pids)
    while True:
        for pid in pids:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return pid
        time.sleep(_LOOK_S)


def _first_exit_kqueue(system: Any, pids: tuple[int, int]) -> int:
    queue = system.kqueue()
    for pid in pids:
        event = system.kevent(
            pid, filter=system.KQ_FILTER_PROC, flags=system.KQ_EV_ADD, fflags=system.KQ_NOTE_EXIT
        )
        try:
            queue.control([event], 0, 0)
        except ProcessLookupError:
            return pid
    return int(queue.control(None, 1, None)[0].ident)


def _first_exit_pidfd(pids: tuple[int, int]) -> int:
    poller = select.poll()
    by_descriptor = {}
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return pid
        by_descriptor[descriptor] = pid
        poller.register(descriptor, select.POLLIN)
    return by_descriptor[poller.poll()[0][0]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
