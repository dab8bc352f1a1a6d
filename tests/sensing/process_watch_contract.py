# ruff: noqa: ASYNC240
"""What every ProcessWatch must do, shown with real processes. Subclasses give the watch and its table."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tray_valet.core.ports import ProcessTable, ProcessWatch
from tray_valet.core.processes import Process, ProcessIdentity

BURST = 200


class Witness:
    """Runs a watch and keeps what it tells, in order."""

    def __init__(self, watch: ProcessWatch, table: ProcessTable) -> None:
        self.watch = watch
        self.table = table
        self.started: list[Process] = []
        self.exited: list[ProcessIdentity] = []
        self.order: list[tuple[str, ProcessIdentity]] = []
        self._news = asyncio.Event()

    def on_started(self, process: Process) -> None:
        self.started.append(process)
        self.order.append(("started", process.identity))
        self._news.set()

    def on_exited(self, identity: ProcessIdentity) -> None:
        self.exited.append(identity)
        self.order.append(("exited", identity))
        self._news.set()

    async def until(self, condition: Callable[[], object], timeout_s: float = 45.0) -> None:
        """Wait until the watch has told enough."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def images(self, exe: Path | str) -> list[Process]:
        return [process for process in self.started if process.exe == str(exe)]

    def identity(self, pid: int) -> ProcessIdentity:
        process = self.table.describe(pid)
        assert process is not None
        return process.identity


class ProcessWatchContract:
    @pytest.fixture
    def table(self) -> ProcessTable:
        raise NotImplementedError

    @pytest.fixture
    def watch(self, table: ProcessTable) -> ProcessWatch:
        raise NotImplementedError

    @pytest.fixture
    def game(self, tmp_path: Path) -> Path:
        (tmp_path / "game").mkdir()
        return Path(shutil.copy("/bin/sleep", tmp_path / "game" / "thegame"))

    @pytest.fixture
    def run(self) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
        """Start a program; it and what it started are ended with the test."""
        children: list[subprocess.Popen[bytes]] = []

        def run(*argv: str | Path) -> subprocess.Popen[bytes]:
            child = subprocess.Popen(list(map(str, argv)), start_new_session=True)
            children.append(child)
            return child

        yield run
        for child in children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    @asynccontextmanager
    async def witnessing(self, watch: ProcessWatch, table: ProcessTable) -> AsyncIterator[Witness]:
        """Run the watch; what ran before has been told when this begins."""
        witness = Witness(watch, table)
        task = asyncio.create_task(watch.run(witness.on_started, witness.on_exited), name="watch")
        ourselves = witness.identity(os.getpid())
        try:
            await witness.until(lambda: ourselves in {process.identity for process in witness.started})
            await asyncio.sleep(0.05)
            yield witness
            assert not task.done(), "the watch ended by itself"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # -- starts

    async def test_what_runs_already_is_told_first(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        child = run(game, "60")
        await asyncio.sleep(0.2)
        async with self.witnessing(watch, table) as witness:
            await witness.until(lambda: witness.images(game))
            assert witness.images(game)[0].identity.pid == child.pid

    async def test_a_program_started_directly_is_told_once(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        async with self.witnessing(watch, table) as witness:
            child = run(game, "60")
            await witness.until(lambda: witness.images(game))
            await asyncio.sleep(1.0)
            (process,) = witness.images(game)
            assert process.identity == witness.identity(child.pid)
            assert process.argv == (str(game), "60")
            assert process.parent_pid == os.getpid()

    async def test_a_program_execed_by_a_shell_is_told(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        async with self.witnessing(watch, table) as witness:
            child = run("sh", "-c", f"sleep 1.5; exec '{game}' 60")
            await witness.until(lambda: witness.images(game))
            images = [one.exe for one in witness.started if one.identity == witness.identity(child.pid)]
            assert images == [os.path.realpath("/bin/sh"), str(game)]

    async def test_a_program_forked_by_a_shell_is_told(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        async with self.witnessing(watch, table) as witness:
            child = run("sh", "-c", f"'{game}' 60 & wait")
            await witness.until(lambda: witness.images(game))
            assert witness.images(game)[0].parent_pid == child.pid

    async def test_a_process_that_execs_twice_is_told_each_time(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable, tmp_path: Path
    ) -> None:
        launcher = Path(shutil.copy("/bin/sh", tmp_path / "game" / "launcher"))
        async with self.witnessing(watch, table) as witness:
            child = run("sh", "-c", f"sleep 1.5; exec '{launcher}' -c \"sleep 1.5; exec '{game}' 60\"")
            await witness.until(lambda: witness.images(game))
            identity = witness.identity(child.pid)
            images = [process.exe for process in witness.started if process.identity == identity]
            assert images == [os.path.realpath("/bin/sh"), str(launcher), str(game)]

    async def test_a_burst_is_told_whole_and_each_once(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        async with self.witnessing(watch, table) as witness:
            run("sh", "-c", f"i=0; while [ $i -lt {BURST} ]; do '{game}' 60 & i=$((i+1)); done; wait")
            await witness.until(lambda: len(witness.images(game)) >= BURST)
            await asyncio.sleep(0.5)
            assert len(witness.images(game)) == BURST
            assert len({process.identity for process in witness.images(game)}) == BURST

    async def test_programs_that_end_at_once_do_no_harm(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        async with self.witnessing(watch, table) as witness:
            run("sh", "-c", f"i=0; while [ $i -lt 100 ]; do '{game}' 0; i=$((i+1)); done").wait()
            short = len(witness.images(game))
            assert short <= 100
            lasting = run(game, "60")
            await witness.until(
                lambda: witness.identity(lasting.pid) in {one.identity for one in witness.images(game)}
            )

    # -- exits

    async def test_the_exit_of_a_followed_process_is_told_once(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        async with self.witnessing(watch, table) as witness:
            child, other = run(game, "60"), run(game, "60")
            identity = witness.identity(child.pid)
            watch.follow(identity)
            watch.follow(identity)
            watch.follow(witness.identity(other.pid))
            await asyncio.sleep(0.5)
            assert witness.exited == []
            child.kill()  # not reaped: a zombie is an exit too
            await witness.until(lambda: witness.exited)
            await asyncio.sleep(0.5)
            assert witness.exited == [identity]

    async def test_following_what_is_gone_tells_its_exit(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        async with self.witnessing(watch, table) as witness:
            child = run(game, "60")
            identity = witness.identity(child.pid)
            child.kill()
            child.wait()
            watch.follow(identity)
            await witness.until(lambda: witness.exited)
            assert witness.exited == [identity]

    async def test_a_reused_pid_is_another_process(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        async with self.witnessing(watch, table) as witness:
            real = witness.identity(run(game, "60").pid)
            earlier = ProcessIdentity(real.pid, real.start_time - 1)
            watch.follow(real)
            watch.follow(earlier)
            await witness.until(lambda: witness.exited)
            await asyncio.sleep(0.5)
            assert witness.exited == [earlier]

    async def test_following_before_the_watch_runs_works(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        child = run(game, "60")
        process = table.describe(child.pid)
        assert process is not None
        watch.follow(process.identity)
        async with self.witnessing(watch, table) as witness:
            child.kill()
            await witness.until(lambda: witness.exited)
            assert witness.exited == [process.identity]

    async def test_what_a_process_forked_is_told_before_its_exit(
        self, watch: ProcessWatch, table: ProcessTable, run: Callable
    ) -> None:
        code = "import os, time\ntime.sleep(60 if os.fork() == 0 else 1.0)"
        async with self.witnessing(watch, table) as witness:
            child = run(sys.executable, "-c", code)
            identity = witness.identity(child.pid)
            watch.follow(identity)
            await witness.until(lambda: witness.exited)
            forked = {
                process.identity
                for process in witness.started
                if process.argv[-1:] == (code,) and process.identity.pid != child.pid
            }
            assert len(forked) == 1
            assert witness.order.index(("started", forked.pop())) < witness.order.index(("exited", identity))

    # -- life

    async def test_it_stops_and_starts_anew(
        self, watch: ProcessWatch, table: ProcessTable, game: Path, run: Callable
    ) -> None:
        before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
        async with self.witnessing(watch, table) as witness:
            watch.follow(witness.identity(run(game, "60").pid))
            assert watch.source != "not started"
        async with self.witnessing(watch, table) as witness:
            run(game, "60")
            await witness.until(lambda: len(witness.images(game)) == 2)
        if before:
            assert set(os.listdir("/proc/self/fd")) <= before
