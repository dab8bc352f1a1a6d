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

from collections.abc import Iterable

import msgspec

from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import Process, ProcessIdentity

_ENGINE_NAMES = frozenset({"llama-server", "ollama_llama_runner"})
_MODEL_FLAGS = ("--model", "-m", "-model")


class OllamaServer(msgspec.Struct, frozen=True):
    """Ollama's server process. `is_certain`: it was seen to hold the port."""

    identity: ProcessIdentity
    is_certain: bool


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
    return "ollama" in _names(process) and process.argv[1:2] == ("serve",)


def is_runner(process: Process) -> bool:
    """Whether a descendant of an Ollama server holds a model, or is about to.

    Ollama also starts its engine for a moment to ask which GPUs there are; that one names no model.
    """
    names = _names(process)
    if not process.argv:  # the system hides the arguments: an engine's own name has to do
        return bool(names & _ENGINE_NAMES)
    is_engine = bool(names & _ENGINE_NAMES) or ("ollama" in names and process.argv[1:2] == ("runner",))
    return is_engine and model_argument(process) is not None


def model_argument(process: Process) -> str | None:
    """What the process was told to load: a file, or at the MLX engine a name."""
    for flag, value in zip(process.argv, process.argv[1:], strict=False):
        if flag in _MODEL_FLAGS:
            return value
    return None


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
    return frozenset(_file_name(path).lower().removesuffix(".exe") for path in paths if path)


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
