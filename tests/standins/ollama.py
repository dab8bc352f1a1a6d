"""A stand-in for an Ollama server: a real process on a real port, with real runner processes below it that
hold real memory.

In a test:

    with OllamaStandin() as ollama:
        ollama.url, ollama.pid
        ollama.set(load_s=2.0, tokens_per_s=50, answer_tokens=100_000, hang=["/api/ps"])
        ollama.calls("/api/generate")        # what clients sent
        ollama.freeze(); ollama.thaw()       # answers nothing, keeps its sockets
        ollama.kill(); ollama.start()        # gone, and back at the same address

By hand:

    python tests/standins/ollama.py --port 11434 --model big:latest=400 --load-s 2 --max-loaded 3

`--model NAME=MEGABYTES` replaces the default models; may be repeated. See `Settings` in ollama_scheduler.py
for what `set` (POST /_standin) takes, and `ollama_routes.py` for the routes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

_START_S = 20.0


class OllamaStandin:
    """The server as a child process, with its control hooks. The port stays the same over restarts."""

    def __init__(self, *arguments: str, port: int = 0) -> None:
        """`arguments` as on the command line; port 0 takes a free one."""
        self._arguments = arguments
        self.port = port
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> OllamaStandin:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and return when it listens."""
        if not self.port:
            from tests.ports import quiet_port  # The script by itself needs it as little as it has it.

            self.port = quiet_port()  # It keeps it over kills: nobody else may get it meanwhile.
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__)),
                "--port",
                str(self.port),
                "--end-with-stdin",
                *self._arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the stand-in ended at once with {self._process.wait(_START_S)}")
        self.port = int(line.split()[-1])

    def kill(self) -> None:
        """End it at once, runners too (they see its end of their stdin close)."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        self._process.kill()
        self._process.wait(_START_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process = None

    def freeze(self) -> None:
        """Stop it without ending it: connections are taken, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        if hasattr(signal, "SIGCONT"):
            os.kill(self.pid, signal.SIGCONT)

    def set(self, **settings: Any) -> None:
        """Change settings; also `reset`, `add_models=[{name, memory_bytes, …}]`, `remove_models=[name]`."""
        self._request("POST", "/_standin", settings)

    def reset(self) -> None:
        """Back to how it started, nothing loaded."""
        self.set(reset=True)

    def calls(self, path: str | None = None) -> list[dict[str, Any]]:
        """What clients asked: `{method, path, body, at}`, oldest first."""
        calls: list[dict[str, Any]] = self._request("GET", "/_standin/calls")
        return [call for call in calls if path in (None, call["path"])]

    def state(self) -> dict[str, Any]:
        """`{runners: {model: pid}, generating, aborted}`."""
        state: dict[str, Any] = self._request("GET", "/_standin")
        return state

    def loaded(self) -> dict[str, dict[str, Any]]:
        """What /api/ps lists, by name."""
        return {model["name"]: model for model in self._request("GET", "/api/ps")["models"]}

    def load(self, model: str, **fields: Any) -> None:
        """Load as some other client would (`keep_alive`, `options`)."""
        self._request("POST", "/api/generate", {"model": model, "stream": False, **fields})

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as response:
            return json.loads(response.read() or "null")


def main(argv: Sequence[str]) -> None:
    """Serve until a signal comes."""
    # The siblings lie beside this file; only the server process needs them.
    import asyncio

    from ollama_models import StandinModel
    from ollama_scheduler import Settings

    parser = argparse.ArgumentParser(description="A stand-in for an Ollama server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11434)
    parser.add_argument("--model", action="append", metavar="NAME=MEGABYTES")
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--tokens-per-s", type=float, default=200.0)
    parser.add_argument("--answer-tokens", type=int, default=0)
    parser.add_argument(
        "--max-loaded", type=int, default=int(os.environ.get("OLLAMA_MAX_LOADED_MODELS", "3"))
    )
    parser.add_argument("--end-with-stdin", action="store_true", help="end when stdin closes")
    given = parser.parse_args(argv)
    settings = Settings(
        load_s=given.load_s,
        tokens_per_s=given.tokens_per_s,
        answer_tokens=given.answer_tokens,
        max_loaded=given.max_loaded,
    )
    models = None
    if given.model:
        pairs = [text.partition("=") for text in given.model]
        models = [StandinModel(name=n, memory_bytes=int(float(mb or 8) * 2**20)) for n, _, mb in pairs]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(settings, models, given.host, given.port, ends_with_parent=given.end_with_stdin))


async def _serve(settings: Any, models: Any, host: str, port: int, *, ends_with_parent: bool) -> None:
    import asyncio
    import threading

    from ollama_http import serve
    from ollama_routes import OllamaRoutes

    routes = OllamaRoutes(settings, models)
    server = await serve(routes.handle, host, port)
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, ended.set)
    if ends_with_parent:

        def wait_for_the_parent() -> None:
            while os.read(sys.stdin.fileno(), 4096):
                pass
            loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=wait_for_the_parent, daemon=True, name="parent-watch").start()
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()
    server.close()
    await routes.scheduler.close()


if __name__ == "__main__":
    main(sys.argv[1:])
