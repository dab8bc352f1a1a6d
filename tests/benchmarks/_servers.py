"""The processes that benchmarks start: a valet in a home of its own, and the bare server it is compared with.

Must not: measure anything but the time to the first answer, which only who starts a process can.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30.0
BASELINE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def status(request):
    return JSONResponse({"ok": True})

app = Starlette(routes=[Route("/status", status)])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", access_log=False)
"""


class Server:
    """One server process, from its spawn to its end."""

    def __init__(self, argv: list[str], port: int, environ: dict[str, str], stdin: int | None = None) -> None:
        self.started_s = time.perf_counter()
        self.process = subprocess.Popen(
            argv,
            env=environ,
            cwd=ROOT,
            stdin=stdin,
            stdout=None if stdin is None else subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.port = port

    def wait_until_it_answers(self) -> float:
        """Seconds from the spawn to the first 200 of GET /status."""
        while time.perf_counter() - self.started_s < START_TIMEOUT_S:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.process.args!r} ended with {self.process.returncode}")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/status")
                if connection.getresponse().status == 200:
                    return time.perf_counter() - self.started_s
            except OSError:
                time.sleep(0.005)
            finally:
                connection.close()
        raise SystemExit(f"{self.process.args!r} did not answer")

    def end(self) -> None:
        """End it, by force when it takes longer than 10 s."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def valet(
    home: Path,
    arguments: Sequence[str] = ("-m", "tray_valet", "serve"),
    *,
    environ: Mapping[str, str] | None = None,
    is_told: bool = False,
) -> Server:
    """A valet in `home`; `is_told`: its stdin and stdout are pipes."""
    control, router = free_port(), free_port()
    settings = {
        "control": {"port": control},
        "router": {"port": router},
        "providers": {"local": {"kind": "llama-server", "models": {"m": {"model_path": "/no/such.gguf"}}}},
    }
    config = home / "config.yaml"
    config.write_text(json.dumps(settings))
    config.chmod(0o600)
    whole = {**os.environ, "TRAY_VALET_HOME": str(home), "TRAY_VALET_ALLOW_ROOT": "1", **(environ or {})}
    return Server([sys.executable, *arguments], control, whole, subprocess.PIPE if is_told else None)


def baseline() -> Server:
    """The bare server."""
    port = free_port()
    return Server([sys.executable, "-c", BASELINE, str(port)], port, dict(os.environ))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
