"""Which processes are Ollama's: by parentage first, and only then by what they run."""

import pytest

from tray_valet.core.errors import CannotKill
from tray_valet.core.processes import Process, ProcessIdentity, ProcessUsage
from tray_valet.providers.ollama_processes import (
    find_runners,
    find_server,
    holding,
    is_runner,
    is_server,
    model_argument,
)
from tray_valet.providers.ollama_runners import OllamaRunners

BLOB = "sha256-" + "ab" * 32
LINUX_RUNNER = (
    "/usr/lib/ollama/llama-server",
    "--model",
    f"/root/.ollama/models/blobs/{BLOB}",
    "--port",
    "4",
)


def process(*argv: str, exe: str = "", pid: int = 7, parent_pid: int = 1) -> Process:
    return Process(identity=ProcessIdentity(pid, pid * 10), exe=exe, argv=argv, parent_pid=parent_pid)


class FixedTable:
    """A process table of given processes. `listener`: the PID that holds the port, None = hidden."""

    def __init__(self, *processes: Process, listener: int | None) -> None:
        self.processes = {p.identity.pid: p for p in processes}
        self.listener = listener
        self.searches = 0
        self.killed: list[ProcessIdentity] = []

    def describe(self, pid: int) -> Process | None:
        return self.processes.get(pid)

    def all_pids(self) -> list[int]:
        self.searches += 1
        return list(self.processes)

    def is_alive(self, identity: ProcessIdentity) -> bool:
        found = self.processes.get(identity.pid)
        return found is not None and found.identity == identity

    def descendants(self, pid: int) -> tuple[ProcessIdentity, ...]:
        children = [p for p in self.processes.values() if p.parent_pid == pid]
        below = [i for child in children for i in self.descendants(child.identity.pid)]
        return (*(child.identity for child in children), *below)

    def listening_on(self, port: int) -> ProcessIdentity | None:
        return self.processes[self.listener].identity if self.listener is not None else None

    def usage(self, processes: object) -> ProcessUsage:
        return ProcessUsage()

    def terminate(self, identity: ProcessIdentity) -> None:
        self.kill(identity)

    def kill(self, identity: ProcessIdentity) -> None:
        self.killed.append(identity)
        del self.processes[identity.pid]


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


SERVER = process("/usr/local/bin/ollama", "serve", exe="/usr/local/bin/ollama", pid=10)
RUNNER = process(*LINUX_RUNNER, pid=11, parent_pid=10)


@pytest.mark.parametrize(
    "runner",
    [
        process(*LINUX_RUNNER),
        process("ollama", "runner", "--model", f"/x/blobs/{BLOB}", "--ctx-size", "8192"),
        process("/usr/local/bin/ollama", "runner", "--mlx-engine", "--model", "gemma:latest"),
        process("/tmp/ollama123/runners/cuda_v12/ollama_llama_runner", "--model", f"/x/{BLOB}"),
        process(
            r"C:\Users\me\AppData\Local\Programs\Ollama\lib\ollama\llama-server.exe",
            "--model",
            rf"C:\Users\me\.ollama\models\blobs\{BLOB}",
        ),
        process(exe=r"C:\Program Files\Ollama\lib\ollama\LLAMA-SERVER.EXE"),  # arguments hidden
        process("llama-server", "--model", "x", exe="/usr/lib/ollama/llama-server (deleted)"),
    ],
)
def test_v15_runners_of_every_version_are_known(runner: Process) -> None:
    assert is_runner(runner)


@pytest.mark.parametrize(
    "other",
    [
        process("ollama", "run", "observer"),
        process("ollama", "serve"),
        process("/usr/lib/ollama/llama-server", "--list-devices"),  # asks which GPUs there are
        process("python", "train.py", "--model", "llama-server"),
        process("sh", "-c", "ollama runner --model x"),
        process(),
    ],
)
def test_v15_what_is_no_runner_is_not_taken_for_one(other: Process) -> None:
    assert not is_runner(other)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("ollama", "serve"), True),
        (("/usr/local/bin/ollama", "serve"), True),
        ((r"C:\Ollama\ollama.exe", "serve"), True),
        (("ollama", "run", "observer"), False),
        (("ollama", "run", "serve"), False),
        (("vim", "serve"), False),
        (("ollama",), False),
    ],
)
def test_v15_only_serve_is_the_server(argv: tuple[str, ...], expected: bool) -> None:
    assert is_server(process(*argv)) is expected


def test_v15_a_llama_server_of_someone_else_is_not_ollamas() -> None:
    table = FixedTable(SERVER, RUNNER, process(*LINUX_RUNNER, pid=20), listener=10)
    server = find_server(table, 11434)
    assert server is not None
    assert server.is_certain
    assert [runner.identity for runner in find_runners(table, server.identity)] == [RUNNER.identity]


def test_a_runner_below_a_wrapper_is_found() -> None:
    wrapper = process("sh", "-c", "…", pid=12, parent_pid=10)
    table = FixedTable(SERVER, wrapper, process(*LINUX_RUNNER, pid=13, parent_pid=12), listener=10)
    assert [r.identity.pid for r in find_runners(table, SERVER.identity)] == [13]


def test_a_server_whose_socket_is_hidden_is_the_only_ollama_serve() -> None:
    table = FixedTable(SERVER, RUNNER, listener=None)
    server = find_server(table, 11434)
    assert server is not None
    assert (server.identity, server.is_certain) == (SERVER.identity, False)


def test_of_two_servers_with_hidden_sockets_neither_is_taken() -> None:
    assert find_server(FixedTable(SERVER, process("ollama", "serve", pid=30), listener=None), 11434) is None


def test_a_model_is_told_by_its_file_or_its_name() -> None:
    other = process("llama-server", "--model", "/blobs/sha256-00", pid=8)
    named = process("ollama", "runner", "--mlx-engine", "--model", "gemma:latest", pid=9)
    runners = (RUNNER, other, named)
    assert holding(runners, model="llama3:latest", blobs=(BLOB,)) == (RUNNER.identity,)
    assert holding(runners, model="gemma:latest", blobs=()) == (named.identity,)
    assert holding(runners, model="qwen3:8b", blobs=("sha256-ff",)) == ()
    assert model_argument(process("llama-server", "--model")) is None


async def test_the_server_is_searched_once_and_not_too_often_when_missing() -> None:
    clock, table = FakeClock(), FixedTable(listener=None)
    runners = OllamaRunners(table, 11434, clock)
    for _ in range(3):
        assert await runners.seen() == ()
    assert table.searches == 1
    clock.now_s = 6.0
    table.processes = {10: SERVER, 11: RUNNER}
    assert [r.identity for r in await runners.seen()] == [RUNNER.identity]
    assert [r.identity for r in await runners.seen()] == [RUNNER.identity]
    assert table.searches == 2


async def test_a_restarted_server_is_found_again() -> None:
    table = FixedTable(SERVER, RUNNER, listener=10)
    runners = OllamaRunners(table, 11434, FakeClock())
    await runners.seen()
    again = process("ollama", "serve", pid=40)
    table.processes, table.listener = {40: again}, 40
    assert await runners.seen() == ()
    table.processes[41] = process(*LINUX_RUNNER, pid=41, parent_pid=40)
    assert [r.identity.pid for r in await runners.seen()] == [41]


async def test_nothing_is_killed_below_a_server_that_was_only_guessed() -> None:
    table = FixedTable(SERVER, RUNNER, listener=None)
    runners = OllamaRunners(table, 11434, FakeClock())
    await runners.seen()
    with pytest.raises(CannotKill) as error:
        await runners.end(RUNNER.identity)
    assert "systemctl restart ollama" in error.value.remedy
    assert table.killed == []
