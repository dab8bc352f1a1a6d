# ruff: noqa: ASYNC220, ASYNC221
"""Each way of watching against real processes, and what happens when a way fails."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sensing.process_watch_contract import ProcessWatchContract, Witness
from tray_valet.core.errors import NotSupported
from tray_valet.core.ports import ProcessTable, ProcessWatch
from tray_valet.sensing.linux_processes import LinuxProcesses
from tray_valet.sensing.linux_procfs import split_cmdline
from tray_valet.sensing.linux_watch import linux_watch
from tray_valet.sensing.portable_processes import PortableProcesses, PsutilOnly
from tray_valet.sensing.portable_watch import portable_watch
from tray_valet.sensing.proc_connector import ProcConnector
from tray_valet.sensing.process_exits import PidfdExits, PolledExits
from tray_valet.sensing.process_poll import LastPidGate, PollSource
from tray_valet.sensing.process_sources import StartListener, StartSource
from tray_valet.sensing.process_watch import SourcedWatch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="its processes are Linux ones")


class _LinuxContract(ProcessWatchContract):
    @pytest.fixture
    def table(self) -> ProcessTable:
        return LinuxProcesses()


class TestByConnector(_LinuxContract):
    @pytest.fixture
    async def watch(self, table: LinuxProcesses) -> ProcessWatch:
        watch = linux_watch(table)
        task = asyncio.create_task(watch.run(lambda _: None, lambda _: None))
        for _ in range(300):
            await asyncio.sleep(0.01)
            if watch.source != "not started":
                break
        source, reason = watch.source, watch.degraded_because
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if source != "proc connector":
            pytest.skip(f"no proc connector here: {reason}")
        return watch


class TestByPoll(_LinuxContract):
    @pytest.fixture
    def watch(self, table: LinuxProcesses) -> ProcessWatch:
        return linux_watch(table, is_connector_tried=False)


class ReaderOfProc(PsutilOnly):
    def argv(self, pid: int) -> tuple[str, ...]:
        try:
            return split_cmdline(Path(f"/proc/{pid}/cmdline").read_bytes())
        except OSError:
            return ()


class TestByPortablePoll(ProcessWatchContract):
    @pytest.fixture
    def table(self) -> ProcessTable:
        return PortableProcesses(ReaderOfProc())

    @pytest.fixture
    def watch(self, table: PortableProcesses) -> ProcessWatch:
        return portable_watch(table)


# -- when a source fails


class FrailSource:
    """A source that works until it is told not to; it tells nothing by itself."""

    name = "frail source"
    relook_ages_s = ()

    def __init__(self, *, refusal: str | None = None) -> None:
        self.refusal = refusal
        self.listener: StartListener | None = None

    async def open(self, listener: StartListener) -> None:
        if self.refusal is not None:
            raise NotSupported(self.refusal)
        self.listener = listener

    async def check(self) -> None:
        if self.refusal is not None:
            raise NotSupported(self.refusal)

    def close(self) -> None:
        self.listener = None


def watch_over(*sources: StartSource, sweep_every_s: float = 60.0) -> tuple[SourcedWatch, LinuxProcesses]:
    table = LinuxProcesses()
    poll = PollSource(table.all_pids, every_s=0.05, open_gate=LastPidGate, is_rota=True)
    return SourcedWatch(table, [*sources, poll], PidfdExits(table), sweep_every_s=sweep_every_s), table


@pytest.fixture
def game(tmp_path: Path) -> Path:
    return Path(shutil.copy("/bin/sleep", tmp_path / "thegame"))


witnessing = ProcessWatchContract().witnessing


async def test_a_source_that_refuses_gives_way_to_the_next_and_says_why() -> None:
    watch, table = watch_over(FrailSource(refusal="not today"))
    async with witnessing(watch, table):
        assert watch.source == "poll 20 Hz"
        assert watch.degraded_because == "frail source: not today"


async def test_no_source_at_all_is_an_error() -> None:
    table = LinuxProcesses()
    watch = SourcedWatch(table, [FrailSource(refusal="no")], PolledExits(table))
    with pytest.raises(NotSupported):
        await watch.run(lambda _: None, lambda _: None)


async def test_a_source_that_is_lost_is_replaced_and_warned_about_once(
    game: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frail = FrailSource()
    watch, table = watch_over(frail)
    caplog.set_level(logging.WARNING)
    async with witnessing(watch, table) as witness:
        assert watch.source == "frail source"
        missed = subprocess.Popen([game, "60"])  # nobody tells; the rescan after the loss finds it
        try:
            assert frail.listener is not None
            frail.listener.lost("the socket broke")
            await witness.until(lambda: witness.images(game))
        finally:
            missed.kill()
            missed.wait()
        assert watch.source == "poll 20 Hz"
        assert watch.degraded_because == "frail source: the socket broke"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_source_that_fell_silent_is_found_out_by_the_sweep(game: Path) -> None:
    frail = FrailSource()
    watch, table = watch_over(frail, sweep_every_s=0.3)
    async with witnessing(watch, table) as witness:
        frail.refusal = "no event came"
        with subprocess.Popen([game, "60"]) as child:
            await witness.until(lambda: witness.images(game) and watch.source == "poll 20 Hz")
            child.kill()


async def test_lost_news_lead_to_a_rescan(game: Path) -> None:
    frail = FrailSource()
    watch, table = watch_over(frail)
    async with witnessing(watch, table) as witness:
        with subprocess.Popen([game, "60"]) as child:
            assert frail.listener is not None
            frail.listener.missed_some()
            await witness.until(lambda: witness.images(game))
            child.kill()


async def test_what_overflows_the_connectors_buffer_is_found_by_a_rescan(game: Path) -> None:
    watch, table = watch_over(ProcConnector(buffer_bytes=4096))
    async with witnessing(watch, table) as witness:
        if watch.source != "proc connector":
            pytest.skip("no proc connector here")
        # The loop is held up (on purpose) while more programs start than the buffer keeps events for.
        script = f"i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done; '{game}' 60 >&2 & echo $!"
        pid = int(subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout)
        try:
            # The sweep, which comes by itself, comes after 60 s.
            await witness.until(lambda: witness.images(game), timeout_s=40)
        finally:
            os.kill(pid, 9)
        assert watch.source == "proc connector"


@pytest.mark.slow
async def test_an_old_process_that_execs_is_seen_by_the_poll_before_the_sweep(game: Path) -> None:
    table = LinuxProcesses()
    watch = linux_watch(table, is_connector_tried=False, sweep_every_s=600)
    async with witnessing(watch, table) as witness:
        with subprocess.Popen(["sh", "-c", f"sleep 6; exec '{game}' 60"]) as child:
            await witness.until(lambda: witness.images(game), timeout_s=6 + 5)
            child.kill()


async def test_arguments_that_change_without_an_exec_are_seen_while_young() -> None:
    """As Wine does: it puts the game's path into its argv after it has started up."""
    code = (
        "import ctypes, sys, time; time.sleep(0.2)\n"
        "fields = open('/proc/self/stat').read().rpartition(')')[2].split()\n"
        "start, end = int(fields[45]), int(fields[46])\n"
        "new = b'Z:/games/Hades.exe'; ctypes.memset(start, 0, end - start)\n"
        "ctypes.memmove(start, new, len(new)); time.sleep(60)"
    )
    table = LinuxProcesses()
    watch = linux_watch(table, sweep_every_s=600)
    async with witnessing(watch, table) as witness:
        with subprocess.Popen([sys.executable, "-ISc", code]) as child:
            await witness.until(lambda: any(one.argv == ("Z:/games/Hades.exe",) for one in witness.started))
            child.kill()


def isolated(*unshare: str) -> str:
    """What the watch says of its source in namespaces of its own."""
    code = (
        "import asyncio, sys\n"
        "from tray_valet.sensing.linux_processes import LinuxProcesses\n"
        "from tray_valet.sensing.linux_watch import linux_watch\n"
        "async def main():\n"
        "    watch = linux_watch(LinuxProcesses())\n"
        "    task = asyncio.create_task(watch.run(lambda _: None, lambda _: None))\n"
        "    while watch.source == 'not started': await asyncio.sleep(0.01)\n"
        "    print(watch.source, '|', watch.degraded_because); task.cancel()\n"
        "asyncio.run(main())"
    )
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    done = subprocess.run(
        ["unshare", *unshare, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if "unshare" in done.stderr:
        pytest.skip(done.stderr)
    return done.stdout.strip()


def test_without_a_connector_in_its_network_namespace_it_polls() -> None:
    assert isolated("--net") == (
        "poll 4 Hz | proc connector: not available in this network namespace or kernel"
    )


def test_in_a_pid_namespace_where_events_name_others_it_polls() -> None:
    said = isolated("--pid", "--fork", "--mount-proc")
    assert said.startswith("poll 4 Hz | proc connector: ")


# -- the gate


def test_the_gate_opens_for_new_processes_only() -> None:
    gate = LastPidGate()
    try:
        gate.has_moved()
        gate.has_moved()
        quiet = [gate.has_moved() for _ in range(50)]  # others' programs may start meanwhile
        assert not all(quiet)
        subprocess.run(["/bin/true"], check=True)
        assert [gate.has_moved(), gate.has_moved()] == [True, True]  # once more: it may be listed late
    finally:
        gate.close()
    assert gate.has_moved()


def test_the_gate_stays_open_where_proc_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    for nspid in ("NSpid:\t99999999", f"NSpid:\t{os.getpid()}\t7", "Name: x"):
        (tmp_path / "self" / "status").write_text(nspid + "\n")
        (tmp_path / "loadavg").write_text("0 0 0 1/1 5\n")
        gate = LastPidGate(str(tmp_path))
        assert [gate.has_moved() for _ in range(3)] == [True] * 3
        gate.close()


async def test_the_watch_sleeps_while_nothing_happens() -> None:
    """With the connector nothing wakes the loop but starts: measured by what a source is asked."""
    frail = FrailSource()
    watch, table = watch_over(frail)
    looks: list[int] = []
    original: Callable[[int], object] = table.glance
    table.glance = lambda pid: (looks.append(pid), original(pid))[1]  # type: ignore[method-assign,assignment,func-returns-value]
    witness = Witness(watch, table)
    task = asyncio.create_task(watch.run(witness.on_started, witness.on_exited))
    await witness.until(lambda: os.getpid() in {process.identity.pid for process in witness.started})
    await asyncio.sleep(0.5)
    looks.clear()
    await asyncio.sleep(1.0)
    assert looks == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
