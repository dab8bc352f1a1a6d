"""The embedded engine: a process that looks like llama-server, over llama.cpp inside xllamacpp.

    python -m tray_valet.engine.server --model FILE.gguf --port 8085 [llama-server's flags]

Decides: how llama-server's command line and exit codes look from outside. llama.cpp itself serves HTTP.
Must not: import the rest of the product (it is started for every model, and its memory counts as the
model's), or live on without the process that started it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from tray_valet.engine.server_flags import FLAGS, FlagError, apply_flags

_PARENT_LOOK_S = 0.5
_LAST_WORDS_S = 0.3
_DEFAULT_PORT = 8080  # llama-server's


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Serve until a signal or the parent's death ends the process; return 1 if it cannot start.

    `LLAMA_API_KEY` is read as llama-server reads it. Why it cannot start is said on stderr.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    environment = os.environ if environ is None else environ
    if "--version" in arguments:
        sys.stderr.write(f"version: {_engine_version()} (llama.cpp inside xllamacpp)\n")
        return 0
    if "-h" in arguments or "--help" in arguments:
        names = dict.fromkeys(flag.names for flag in FLAGS)  # a flag with two fields is in two rows
        sys.stdout.write("\n".join(name.replace(" ", ", ") for name in names) + "\n")
        return 0
    return _serve(arguments, environment)


def _serve(arguments: list[str], environment: Mapping[str, str]) -> int:
    try:
        import xllamacpp
    except ImportError as error:
        return _fail(f"the engine is not installed: {error}. Install tray-valet[engine].")
    _end_with_parent(os.getppid())
    params = xllamacpp.CommonParams()
    params.n_parallel, params.port = -1, _DEFAULT_PORT
    if key := environment.get("LLAMA_API_KEY"):
        params.api_keys = key.split(",")
    try:
        apply_flags(xllamacpp, params, arguments)
    except FlagError as error:
        return _fail(str(error))
    if not params.model.path:
        return _fail("--model is missing")
    server = _load(xllamacpp, params)
    if server is None:
        return 1
    # Only now: while the model loads no Python code runs, so the default action has to end the process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_at_once)
    sys.stderr.write(f"tray-valet engine: listening on {server.listening_address}\n")
    sys.stderr.flush()
    while True:
        time.sleep(3600)


def _load(xllamacpp: Any, params: Any) -> Any | None:
    """Start the server and wait for its model; None, with the reason on stderr, if that fails.

    The constructor keeps the GIL until the model is loaded; meanwhile llama.cpp's own threads answer
    /health with 503.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return xllamacpp.Server(params)
    except (RuntimeError, ValueError, OSError) as error:
        why = f"couldn't bind port {params.port}: address already in use" if _is_taken(params) else str(error)
        # llama.cpp knows more, and says it from a thread of its own that would end with the process.
        time.sleep(_LAST_WORDS_S)
        _fail(f"{params.model.path}: {why}")
        return None


def _is_taken(params: Any) -> bool:
    """Whether another program listens at the port that was meant for us."""
    import errno
    import socket  # a model that loads needs neither

    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((params.hostnames[0] if params.hostnames else "127.0.0.1", params.port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _end_with_parent(parent_pid: int) -> None:
    """Watch the parent from a thread and end when it is gone.

    The kernel's own tie is quicker where there is one (`desktop/child_tie.py`); this one needs none.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_PARENT_LOOK_S)
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _exit_at_once(_signal_number: int, _frame: FrameType | None) -> None:
    """End in mid-stream too: a graceful stop of llama.cpp waits for its clients, holding the memory."""
    os._exit(0)


def _fail(reason: str) -> int:
    sys.stderr.write(f"error: {reason}\n")
    sys.stderr.flush()
    return 1


def _engine_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("xllamacpp")
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
