"""Idle priority from the first instruction, and for processes that run already; with real processes."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tray_valet.core.errors import NotSupported
from tray_valet.desktop.child_tie import LinuxChildTie, WatcherChildTie
from tray_valet.desktop.cpu_priority import LinuxCpuPriority, system_cpu_priority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the ways of Linux")

# Says how it was started, and how a child and a thread of it are.
REPORT = """
import os, subprocess, sys, threading
own = os.sched_getscheduler(0)
thread = []
t = threading.Thread(target=lambda: thread.append(os.sched_getscheduler(0)))
t.start(); t.join()
print(own, thread[0], os.getpid(), flush=True)
sys.stdin.read()
"""
# Four threads that wait.
THREADS = """
import sys, threading
for _ in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    "tie",
    [LinuxChildTie(), LinuxChildTie(may_use_setpriv=False), WatcherChildTie()],
    ids=["util-linux", "launcher", "watcher"],
)
def test_a_command_in_the_background_is_so_from_the_start(tie: LinuxChildTie | WatcherChildTie) -> None:
    with subprocess.Popen(
        tie.wrap([sys.executable, "-c", REPORT], is_in_background=True),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        own, thread, pid = map(int, process.stdout.readline().split())
        assert own == thread == os.SCHED_IDLE
        assert pid == process.pid, "the process ID stays the same"
        assert psutil.Process(pid).ionice().ioclass == psutil.IOPRIO_CLASS_IDLE
        assert autogroup_nice(pid) in (19, None)
        assert autogroup_nice(os.getpid()) in (0, None), "our own session keeps its weight"


def test_without_asking_nothing_changes() -> None:
    with subprocess.Popen(
        LinuxChildTie().wrap([sys.executable, "-c", REPORT]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split()[:2] == [str(os.SCHED_OTHER)] * 2


@pytest.fixture
def running() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", THREADS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def policies(pid: int) -> set[int]:
    return {os.sched_getscheduler(int(tid)) for tid in os.listdir(f"/proc/{pid}/task")}


def autogroup_nice(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/autogroup").read_text().rpartition(" ")[2])
    except (OSError, ValueError):
        return None


def test_all_threads_of_a_running_process_are_lowered(running: subprocess.Popen[str]) -> None:
    assert policies(running.pid) == {os.SCHED_OTHER}
    LinuxCpuPriority().lower(running.pid)
    assert len(os.listdir(f"/proc/{running.pid}/task")) == 4
    assert policies(running.pid) == {os.SCHED_IDLE}
    assert psutil.Process(running.pid).ionice().ioclass == psutil.IOPRIO_CLASS_IDLE
    assert autogroup_nice(running.pid) in (19, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="a usual user may not, and is told so")
def test_one_who_may_puts_them_back(running: subprocess.Popen[str]) -> None:
    LinuxCpuPriority().lower(running.pid)
    LinuxCpuPriority().restore(running.pid)
    assert policies(running.pid) == {os.SCHED_OTHER}
    assert psutil.Process(running.pid).ionice().ioclass != psutil.IOPRIO_CLASS_IDLE


# Lowers itself, tries to come back, says what happened.
WITHOUT_RIGHTS = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tray_valet.core.errors import NotSupported
from tray_valet.desktop.cpu_priority import LinuxCpuPriority
priority = LinuxCpuPriority()
priority.lower(os.getpid())
try:
    priority.restore(os.getpid())
except NotSupported:
    print("refused", os.sched_getscheduler(0))
else:
    print("restored", os.sched_getscheduler(0))
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="gives up a right")
def test_one_who_may_not_is_told_that_it_cannot_be_undone() -> None:
    def have_no_limit_of_nice() -> None:
        resource.setrlimit(resource.RLIMIT_NICE, (0, 0))

    answer = subprocess.run(
        [
            *("setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", "--"),
            *(sys.executable, "-c", WITHOUT_RIGHTS, str(Path(__file__).parents[2])),
        ],
        preexec_fn=have_no_limit_of_nice,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer.stdout.split() == ["refused", str(os.SCHED_IDLE)], answer.stderr


@pytest.mark.parametrize("call", [LinuxCpuPriority().lower, LinuxCpuPriority().restore])
def test_a_process_that_is_gone_is_fine(call: Callable[[int], None]) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    call(process.pid)


def test_every_system_has_its_way() -> None:
    assert isinstance(system_cpu_priority(), LinuxCpuPriority)
    assert issubclass(NotSupported, Exception)
