"""Ollama's processes: which is its server, which are its runners, which of them holds a model.

Decides: what counts as a runner, and by what a runner's model is told.
Must not: take a process for a runner by its name alone (people run `llama-server` for themselves): a runner
is a child of this very server.

Facts: llm/llama_server.go of Ollama (since 0.30 a runner is `llama-server --model …/blobs/sha256-…`, its
child) and x/mlxrunner/client.go (`ollama runner --mlx-engine --model NAME`); older versions run
`ollama runner --model …` and, up to 0.5, `ollama_llama_runner --model …`. A server in a container shows no
runners: what listens here is the container's proxy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import Process, ProcessIdentity
from tray_valet.core.service_plan import FoundServer

_ENGINE_NAMES = frozenset({"llama-server", "ollama_llama_runner"})
_MODEL_FLAGS = ("--model", "-m", "-model")
_PARALLEL_FLAGS = ("--parallel", "-np", "-parallel")
_SERVE = (("serve",), ("start",))  # cmd/cmd.go: `start` is an alias
# Of programs that are scripts the system tells the interpreter first: `sh /home/me/bin/ollama serve`.
_INTERPRETER = re.compile(r"^(?:(?:ba|da|z|k)?sh|python[\d.]*|pypy[\d.]*)$")


class OllamaServer(msgspec.Struct, frozen=True):
    """Ollama's server process. `is_certain`: it was seen to hold the port."""

    identity: ProcessIdentity
    is_certain: bool


class OllamaProcesses:
    """Implements `core.service_plan.ServerProcesses` for the server on `port` of this machine."""

    def __init__(self, table: ProcessTable, port: int) -> None:
        self._table = table
        self._port = port

    def server(self) -> FoundServer | None:
        """The process that listens there; a guess is told as one."""
        found = find_server(self._table, self._port)
        process = self._table.describe(found.identity.pid) if found else None
        if found is None or process is None or process.identity != found.identity:
            return None
        return FoundServer(process=process, is_certain=found.is_certain, is_ollama=is_server(process))

    def runners(self, server: ProcessIdentity) -> tuple[ProcessIdentity, ...]:
        """The server's runners."""
        return tuple(process.identity for process in find_runners(self._table, server))


def find_server(table: ProcessTable, port: int) -> OllamaServer | None:
    """Find the server that listens on `port` of this machine; None where it cannot be told.

    Which process holds another user's socket is hidden; then the only `ollama serve` of the machine is
    taken for it, which is enough to measure but not to kill. Slow: call it in a worker thread.
    """
    listener = table.listening_on(port)
    if listener is not None:
        return OllamaServer(listener, is_certain=True)
    described = (table.describe(pid) for pid in table.all_pids())
    servers = [process.identity for process in described if process is not None and is_server(process)]
    return OllamaServer(servers[0], is_certain=False) if len(servers) == 1 else None


def find_runners(table: ProcessTable, server: ProcessIdentity) -> tuple[Process, ...]:
    """Find the runners below a server. Slow: call it in a worker thread."""
    described = ((identity, table.describe(identity.pid)) for identity in table.descendants(server.pid))
    return tuple(
        process
        for identity, process in described
        if process is not None and process.identity == identity and is_runner(process)
    )


def is_server(process: Process) -> bool:
    """Whether that is an Ollama server (`ollama serve`), not its client or something that names it."""
    argv = process.argv
    if len(argv) > 2 and _INTERPRETER.search(_program(argv[0])) and _program(argv[1]) == "ollama":
        return argv[2:3] in _SERVE
    return "ollama" in _names(process) and argv[1:2] in _SERVE


def is_runner(process: Process) -> bool:
    """Whether a descendant of an Ollama server holds a model, or is about to.

    Ollama also starts its engine for a moment to ask which GPUs there are; that one names no model.
    """
    names = _names(process)
    if not process.argv:  # the system hides the arguments: the name of an engine, or of Ollama, has to do
        return bool(names & (_ENGINE_NAMES | {"ollama"}))
    is_engine = bool(names & _ENGINE_NAMES) or ("ollama" in names and process.argv[1:2] == ("runner",))
    return is_engine and model_argument(process) is not None


def model_argument(process: Process) -> str | None:
    """What the process was told to load: a file, or at the MLX engine a name."""
    for flag, value in zip(process.argv, process.argv[1:], strict=False):
        if flag in _MODEL_FLAGS:
            return value
    return None


def slots_of(process: Process) -> int | None:
    """How many requests a runner works on at once, as it was told; None where that is not seen."""
    found = None
    for flag, value in zip(process.argv, process.argv[1:], strict=False):
        if flag in _PARALLEL_FLAGS and value.isdigit():
            found = int(value) or None
    return found


def holding(runners: Iterable[Process], *, model: str, blobs: Iterable[str]) -> tuple[ProcessIdentity, ...]:
    """Which runners hold the model, told by its files' names (`sha256-…`), or by its own name."""
    wanted = frozenset(blobs)
    told = ((runner.identity, model_argument(runner) or "") for runner in runners)
    return tuple(
        identity for identity, argument in told if argument == model or _file_name(argument) in wanted
    )


def _names(process: Process) -> frozenset[str]:
    """What the process is called, by its image and by its first argument."""
    paths = (process.exe.removesuffix(" (deleted)"), *process.argv[:1])
    return frozenset(_program(path) for path in paths if path)


def _program(path: str) -> str:
    return _file_name(path).lower().removesuffix(".exe")


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
