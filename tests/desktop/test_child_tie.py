"""Ties between a child's life and ours, with real processes that know nothing of each other."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tray_valet.core.ports import ChildTie, ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.desktop.child_tie import (
    LinuxChildTie,
    WatcherChildTie,
    WindowsChildTie,
    job_limits,
    system_child_tie,
)

ROOT = Path(__file__).parents[2]
TIES = {
    "setpriv": "LinuxChildTie()",
    "prctl": "LinuxChildTie(may_use_setpriv=False)",
    "watcher": "WatcherChildTie()",
}
# Starts `sleep` under a tie, says its process ID, and waits to be killed.
OWNER = """
import subprocess, sys, time
from tray_valet.desktop.child_tie import LinuxChildTie, WatcherChildTie
tie = {tie}
child = subprocess.Popen(tie.wrap(["sleep", "60"]), start_new_session=True)
tie.adopt(child.pid)
print(child.pid, flush=True)
time.sleep(60)
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="runs POSIX programs")


def wait_for_program(table: ProcessTable, pid: int, program: str) -> ProcessIdentity:
    """Wait until the launcher has become the command."""
    deadline_s = time.monotonic() + 45
    while True:
        process = table.describe(pid)
        if process and process.argv and process.argv[0] == program:
            return process.identity
        assert time.monotonic() < deadline_s, process
        time.sleep(0.005)


def wait_for_end(table: ProcessTable, identity: ProcessIdentity) -> None:
    deadline_s = time.monotonic() + 45
    while table.is_alive(identity):
        assert time.monotonic() < deadline_s, "the child outlives its owner"
        time.sleep(0.005)


@pytest.fixture(params=TIES)
def owner(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    if request.param != "watcher" and sys.platform != "linux":
        pytest.skip("the tie of Linux")
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(tie=TIES[request.param])],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    yield process
    process.kill()
    process.communicate()


def test_the_child_dies_with_its_killed_owner(
    owner: subprocess.Popen[str], process_table: ProcessTable
) -> None:
    assert owner.stdout is not None
    child = wait_for_program(process_table, int(owner.stdout.readline()), "sleep")
    owner.kill()
    wait_for_end(process_table, child)


@pytest.fixture(params=TIES)
def tie(request: pytest.FixtureRequest) -> ChildTie:
    if request.param != "watcher" and sys.platform != "linux":
        pytest.skip("the tie of Linux")
    return (
        WatcherChildTie()
        if request.param == "watcher"
        else LinuxChildTie(may_use_setpriv=request.param == "setpriv")
    )


def test_the_child_gets_its_arguments_output_and_exit_code_unchanged(tie: ChildTie) -> None:
    script = "import sys; print(sys.argv[1:]); sys.stderr.write('e'); sys.exit(7)"
    arguments = ["", "a b", "$HOME", "--", "'\"", "ü"]
    done = subprocess.run(
        tie.wrap([sys.executable, "-c", script, *arguments]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (7, repr(arguments), "e")


def test_the_child_keeps_the_process_id_and_its_output_ends_with_it(
    tie: ChildTie, process_table: ProcessTable
) -> None:
    with subprocess.Popen(tie.wrap(["sleep", "60"]), stdout=subprocess.PIPE) as child:
        identity = wait_for_program(process_table, child.pid, "sleep")
        assert identity.pid == child.pid
        child.kill()
        assert child.stdout is not None
        assert child.stdout.read() == b""  # nobody else holds the pipe open


def test_a_command_that_does_not_exist_is_told(tie: ChildTie) -> None:
    done = subprocess.run(
        tie.wrap(["/no/such/program"]), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 127
    assert "/no/such/program" in done.stderr


def test_nothing_is_started_for_a_parent_that_is_gone_already(tie: ChildTie, tmp_path: Path) -> None:
    """The race: the owner died before the tie was made, so the child has another parent by now."""
    trace = tmp_path / "trace"
    command = tie.wrap(["touch", str(trace)])
    through = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"]
    done = subprocess.run([*through, *command], timeout=60, check=False)
    assert done.returncode == 125
    assert not trace.exists()


def test_the_watcher_goes_with_its_child(process_table: ProcessTable) -> None:
    tie = WatcherChildTie()
    with subprocess.Popen(tie.wrap(["sleep", "60"])) as child:
        wait_for_program(process_table, child.pid, "sleep")
        watchers = [
            process.identity
            for pid in process_table.all_pids()
            if (process := process_table.describe(pid)) and "watcher" in process.argv
            if str(os.getpid()) in process.argv
        ]
        assert len(watchers) == 1
        child.kill()
    wait_for_end(process_table, watchers[0])


def test_this_system_has_a_tie() -> None:
    expected = {"linux": LinuxChildTie, "win32": WindowsChildTie, "darwin": WatcherChildTie}
    assert isinstance(system_child_tie(), expected[sys.platform])


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="sizes of 64-bit systems")
def test_the_windows_job_limits_are_laid_out_as_in_winnt_h() -> None:
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION is 144 bytes; LimitFlags is the DWORD at 16."""
    limits = bytes(job_limits())
    assert len(limits) == 144
    assert int.from_bytes(limits[16:20], "little") == 0x2000
