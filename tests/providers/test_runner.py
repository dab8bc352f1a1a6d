"""One runner: identity, ports, ends; and that none outlives its owner."""

from __future__ import annotations

import asyncio
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from tray_valet.core.config_providers import LlamaServerModelSettings, LlamaServerSettings
from tray_valet.core.engines import Engine
from tray_valet.core.errors import LoadFailed
from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import Process, ProcessIdentity, ProcessUsage
from tray_valet.desktop.child_tie import LinuxChildTie, system_child_tie
from tray_valet.providers import runner as runner_module
from tray_valet.providers.runner import Runner, RunnerState, RunnerSurroundings
from tray_valet.providers.runner_command import RunnerCommand, runner_command
from tray_valet.providers.runner_port import PortRange
from tray_valet.providers.runner_probe import RunnerProbe
from tray_valet.providers.runner_records import RunnerRecords
from tray_valet.services.clock import SystemClock

ROOT = Path(__file__).parents[2]


class ChosenPorts(PortRange):
    """Offers just these ports, free or not: what the bind test let through and somebody took since."""

    def __init__(self, *ports: int) -> None:
        super().__init__(0)
        self._chosen = list(ports)

    def take(self) -> int:
        return self._chosen.pop(0)


class BlindTable:
    """The real table on a system that does not tell who listens."""

    def __init__(self, table: ProcessTable) -> None:
        self._table = table

    def describe(self, pid: int) -> Process | None:
        return self._table.describe(pid)

    def all_pids(self) -> Sequence[int]:
        return self._table.all_pids()

    def is_alive(self, identity: ProcessIdentity) -> bool:
        return self._table.is_alive(identity)

    def descendants(self, pid: int) -> tuple[ProcessIdentity, ...]:
        return self._table.descendants(pid)

    def listening_on(self, port: int) -> ProcessIdentity | None:
        return None

    def usage(self, processes: Sequence[ProcessIdentity]) -> ProcessUsage:
        return self._table.usage(processes)

    def terminate(self, identity: ProcessIdentity) -> None:
        self._table.terminate(identity)

    def kill(self, identity: ProcessIdentity) -> None:
        self._table.kill(identity)


class LeapingClock:
    """Every look at it is so much later."""

    def __init__(self, step_s: float = 60) -> None:
        self._step_s = step_s
        self._now_s = 0.0

    def monotonic_s(self) -> float:
        self._now_s += self._step_s
        return self._now_s

    def wall_s(self) -> float:
        return self._now_s


class Impostor(http.server.BaseHTTPRequestHandler):
    """Answers 200 to everything, as any server on the port may."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}')

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def occupied_port() -> Iterator[int]:
    """A port on which another program answers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Impostor) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
async def surroundings(process_table: ProcessTable, tmp_path: Path) -> AsyncIterator[RunnerSurroundings]:
    probe = RunnerProbe()
    yield RunnerSurroundings(
        provider="local",
        tie=system_child_tie(),
        table=process_table,
        records=RunnerRecords(tmp_path / "runners.json"),
        ports=PortRange(0),
        probe=probe,
        clock=SystemClock(),
    )
    await probe.close()


def runner_of(engine: Engine, model: Path, surroundings: RunnerSurroundings) -> Runner:
    settings = LlamaServerSettings(
        models={"one": LlamaServerModelSettings(model_path=str(model), flags=("-c", "1024"))}
    )

    def command_for(port: int, api_key: str) -> RunnerCommand:
        return runner_command(
            engine,
            settings,
            alias="one",
            model_path=str(model),
            context_length=None,
            port=port,
            api_key=api_key,
            environ=os.environ,
        )

    return Runner("one", str(model), command_for, surroundings, on_crash=lambda _notice: None)


@pytest.mark.parametrize("sees_listeners", [True, False])
async def test_r2_another_server_on_the_port_is_not_taken_for_ours(
    engine: Engine,
    tiny_model: Path,
    surroundings: RunnerSurroundings,
    occupied_port: int,
    sees_listeners: bool,
) -> None:
    free_port = PortRange(0).take()
    table = surroundings.table if sees_listeners else BlindTable(surroundings.table)
    runner = runner_of(
        engine,
        tiny_model,
        msgspec.structs.replace(surroundings, ports=ChosenPorts(occupied_port, free_port), table=table),
    )
    await runner.start()
    assert runner.base_url.endswith(f":{free_port}")
    assert runner.state is RunnerState.READY
    await runner.kill()


async def test_a_runner_that_finds_no_port_says_so_and_leaves_nothing(
    engine: Engine, tiny_model: Path, surroundings: RunnerSurroundings, occupied_port: int
) -> None:
    ports = ChosenPorts(*[occupied_port] * 5)
    runner = runner_of(engine, tiny_model, msgspec.structs.replace(surroundings, ports=ports))
    with pytest.raises(LoadFailed, match="ports"):
        await runner.start()
    assert runner.state is RunnerState.FAILED
    assert not runner.is_running


async def test_a_program_that_listens_but_is_no_llama_server_is_refused(
    tiny_model: Path, surroundings: RunnerSurroundings, engine: Engine
) -> None:
    script = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
    fake = msgspec.structs.replace(engine, argv=(sys.executable, "-c", script))
    runner = runner_of(fake, tiny_model, surroundings)
    with pytest.raises(LoadFailed, match="does not answer as llama-server"):
        await runner.start()
    assert not runner.is_running


async def test_a_runner_that_does_nothing_for_long_is_given_up(
    tiny_model: Path, surroundings: RunnerSurroundings, engine: Engine
) -> None:
    hung = msgspec.structs.replace(engine, argv=(sys.executable, "-c", "import signal; signal.pause()"))
    leaping = msgspec.structs.replace(surroundings, clock=LeapingClock())
    runner = runner_of(hung, tiny_model, leaping)
    with pytest.raises(LoadFailed, match=f"did nothing for {runner_module.STALL_S:.0f} s"):
        await runner.start()
    assert not runner.is_running


async def test_v21_a_load_of_many_minutes_completes_as_long_as_something_moves(
    engine: Engine, tiny_model: Path, surroundings: RunnerSurroundings
) -> None:
    """By its clock the load takes hours; the engine shows progress for three seconds, then becomes itself."""
    script = """
import os, sys, time
for number in range(300):
    print("tensor", number, flush=True)
    time.sleep(0.01)
os.execv(sys.argv[1], sys.argv[1:])
"""
    slow = msgspec.structs.replace(engine, argv=(sys.executable, "-c", script, *engine.argv))
    clock = LeapingClock(step_s=20)
    runner = runner_of(slow, tiny_model, msgspec.structs.replace(surroundings, clock=clock))
    await runner.start()
    assert clock.wall_s() > runner_module.STALL_S
    assert runner.state is RunnerState.READY
    await runner.kill()


async def test_a_runner_that_writes_a_lot_is_never_stalled_by_its_pipe(
    tiny_model: Path, surroundings: RunnerSurroundings, engine: Engine
) -> None:
    chatter = "import os, sys; [os.write(i % 2 + 1, b'x' * 99 + b'\\n') for i in range(40_000)]; sys.exit(3)"
    noisy = msgspec.structs.replace(engine, argv=(sys.executable, "-c", chatter))
    runner = runner_of(noisy, tiny_model, surroundings)
    with pytest.raises(LoadFailed) as failure:
        await runner.start()
    assert len(failure.value.log_tail) == 200


async def test_one_that_ignores_sigterm_is_killed(
    engine: Engine, tiny_model: Path, surroundings: RunnerSurroundings, tmp_path: Path
) -> None:
    """The engine, stopped: it cannot answer SIGTERM, which is what a hanging stop looks like."""
    runner = runner_of(engine, tiny_model, surroundings)
    await runner.start()
    assert runner.pid is not None
    os.kill(runner.pid, signal.SIGSTOP)
    await runner.stop(grace_s=0.2)
    assert not runner.is_running
    assert runner.state is RunnerState.OFF


async def test_every_runner_is_on_the_list_while_it_lives(
    engine: Engine, tiny_model: Path, surroundings: RunnerSurroundings, tmp_path: Path
) -> None:
    listed = tmp_path / "runners.json"
    runner = runner_of(engine, tiny_model, surroundings)
    await runner.start()
    assert f'"pid":{runner.pid}' in listed.read_text()
    await runner.kill()
    assert listed.read_text() == "[]"


# -- no orphan ---------------------------------------------------------------------------------------

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the tie of Linux")


@linux_only
@pytest.mark.parametrize("what", ["load", "loading", "streaming"])
def test_r3_no_runner_outlives_its_killed_owner(
    what: str, tmp_path: Path, large_model: Path, process_table: ProcessTable
) -> None:
    owner = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("runner_owner.py")),
            str(tmp_path),
            str(large_model),
            what,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert owner.stdout is not None
        described = [process_table.describe(int(pid)) for pid in owner.stdout.readline().split()]
        assert len(described) == 1
        runners = [process.identity for process in described if process]
        assert runners
    finally:
        owner.kill()
        owner.communicate()
    wait_until(lambda: not any(map(process_table.is_alive, runners)))


@linux_only
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_during_the_load_ends_the_process(
    ending: signal.Signals, engine: Engine, large_model: Path, surroundings: RunnerSurroundings
) -> None:
    runner = runner_of(engine, large_model, surroundings)
    start = asyncio.create_task(runner.start(), name="test-start")
    deadline_s = time.monotonic() + 45
    while runner.state is not RunnerState.LOADING:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0)
    assert runner.pid is not None
    os.kill(runner.pid, ending)
    with pytest.raises(LoadFailed, match=ending.name):
        await start
    assert not runner.is_running


@linux_only
async def test_the_tie_works_without_setpriv_too(
    engine: Engine, tiny_model: Path, surroundings: RunnerSurroundings
) -> None:
    tie = LinuxChildTie(may_use_setpriv=False)
    runner = runner_of(engine, tiny_model, msgspec.structs.replace(surroundings, tie=tie))
    await runner.start()
    await runner.stop()
    assert not runner.is_running


def wait_until(condition: object, within_s: float = 40.0) -> None:
    assert callable(condition)
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
