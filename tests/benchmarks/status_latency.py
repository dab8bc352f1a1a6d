"""How quickly GET /status answers five clients at once, beside a bare Starlette route in the same run.

    python tests/benchmarks/status_latency.py [--json] [--clients 5] [--requests 400]

Both servers are processes of their own: `tray-valet serve` in a temporary home without providers, and one
trivial Starlette route on uvicorn. The clients share this process; each keeps one connection and asks as
fast as it is answered. The rounds of the two servers alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGET_P99_MS = 20.0
ROUNDS = 4
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


async def ask(port: int, count: int, times_s: list[float]) -> None:
    """One client: `count` requests on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET /status HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    for _ in range(count):
        start_s = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"unexpected answer: {head[:200]!r}")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        times_s.append(time.perf_counter() - start_s)
    writer.close()


async def measure(ports: dict[str, int], clients: int, requests: int) -> dict[str, list[float]]:
    """Latencies of each server, in seconds, in alternating rounds after a warm-up."""
    times_s: dict[str, list[float]] = {name: [] for name in ports}
    for round_number in range(ROUNDS + 1):
        for name, port in ports.items():
            into: list[float] = [] if round_number == 0 else times_s[name]
            await asyncio.gather(*(ask(port, max(1, requests // ROUNDS), into) for _ in range(clients)))
    return times_s


def summary(times_s: list[float]) -> dict[str, float]:
    ordered = sorted(times_s)
    points = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    last = len(ordered) - 1
    return {name: round(1000 * ordered[round(last * share)], 2) for name, share in points.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    end_s = time.monotonic() + 30
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit("the server does not listen")


def start_valet(home: str, port: int) -> subprocess.Popen[bytes]:
    config = Path(home, "config.yaml")
    config.write_text("providers: {}\n")
    config.chmod(0o600)
    env = {
        **os.environ,
        "TRAY_VALET_HOME": home,
        "TRAY_VALET_ALLOW_ROOT": "1",
        "TRAY_VALET_CONTROL__PORT": str(port),
        "TRAY_VALET_ROUTER__PORT": "0",
    }
    command = [sys.executable, "-m", "tray_valet", "--config", str(config), "serve"]
    return subprocess.Popen(command, env=env, cwd=ROOT)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run(clients: int, requests: int) -> dict[str, Any]:
    """Start both servers, measure, end both."""
    ports = {"tray-valet": free_port(), "bare starlette": free_port()}
    with tempfile.TemporaryDirectory() as home:
        servers = [
            start_valet(home, ports["tray-valet"]),
            subprocess.Popen([sys.executable, "-c", BASELINE, str(ports["bare starlette"])]),
        ]
        try:
            for server, port in zip(servers, ports.values(), strict=True):
                wait_until_listening(server, port)
            times_s = asyncio.run(measure(ports, clients, requests))
        finally:
            for server in servers:
                stop(server)
    return {name: summary(times) for name, times in times_s.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--requests", type=int, default=400, help="of each client, to each server")
    arguments = parser.parse_args()
    figures = run(arguments.clients, arguments.requests)
    is_reached = figures["tray-valet"]["p99_ms"] <= TARGET_P99_MS
    if arguments.json:
        print(json.dumps({"figures": figures, "target_p99_ms": TARGET_P99_MS, "ok": is_reached}))
        return 0 if is_reached else 1
    print(f"GET /status, {arguments.clients} clients, {arguments.requests} requests each")
    for name, values in figures.items():
        print(f"  {name:15} " + "  ".join(f"{key[:-3]} {value:7.2f} ms" for key, value in values.items()))
    print(f"  p99 at most {TARGET_P99_MS:g} ms: {'reached' if is_reached else 'NOT reached'}")
    return 0 if is_reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
