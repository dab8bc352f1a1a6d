"""How soon after a game's start a 379 MB model's memory is back: engine idle, and while it is streaming.

    python tests/benchmarks/eviction.py [--json] [--rounds 30] [--streaming-rounds 10] [--baseline-rounds 20]

A real `tray-valet serve` with the real engine. The game is a real process from a made-up Steam library; time
runs from just before its spawn until the engine's process is gone, or a zombie without threads: the kernel
frees a process's memory before that (and shows it as 0 earlier, so its size is not what is looked at).
While streaming, a client reads an endless answer through the router. The baseline, in the same run, is a
SIGKILL to the same engine alone.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tray_valet.commands.client import LOAD_TIMEOUT_S
from tray_valet.commands.demo_home import LARGE, DemoHome, GameProgram
from tray_valet.commands.demo_valet import DemoValet, Game, wait_until
from tray_valet.desktop.child_tie import system_child_tie
from tray_valet.engine.locate import embedded_engine

DRAIN_S = 3
TARGET_IDLE_S, TARGET_STREAMING_S = 1.0, DRAIN_S + 1.0
TIMEOUT_S = 60.0


def holds_memory(pid: int) -> bool:
    """Whether the process may still have memory of its own."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_free(pid: int, since_s: float) -> float:
    """Seconds from `since_s` until the process holds no memory."""
    while holds_memory(pid):
        if time.monotonic() - since_s > TIMEOUT_S:
            raise SystemExit(f"process {pid} still holds memory after {TIMEOUT_S:.0f} s")
        time.sleep(0.001)
    return time.monotonic() - since_s


class Bench:
    """A demo home with its valet, the large model loaded between the rounds."""

    def __init__(self, home: DemoHome) -> None:
        self.tie = system_child_tie()
        self.home = home
        home.write_models()
        home.write_settings({"eviction": {"drain_seconds": DRAIN_S}})
        settings = json.loads(home.config.read_text())
        settings["games"] |= {"grace_seconds": 0, "end_debounce_seconds": 0.1}
        home.write_settings(settings)
        self.program: GameProgram = home.write_game()
        self.valet = DemoValet(home, self.tie, os.environ)

    def start(self) -> None:
        client = self.valet.start()
        client.post("/load", {"model": LARGE}, timeout_s=LOAD_TIMEOUT_S)

    def runner_pid(self) -> int | None:
        """The large model's process, once the valet is running and has it."""
        assert self.valet.client is not None
        status = self.valet.client.get("/status")
        if status["watchdog"]["state"] != "running":
            return None
        return next((int(model["pid"]) for model in status["models"] if model["name"] == LARGE), None)

    def round(self) -> tuple[float, float]:
        """(seconds until the memory is back, seconds until the valet says paused) of one game."""
        pid = wait_until(self.runner_pid, "the large model loaded", TIMEOUT_S)
        game = Game(self.program.argv, self.program.env, self.tie)
        try:
            free_s = wait_until_free(pid, game.started_s)
            wait_until(lambda: self.is_paused() or None, "the state paused", TIMEOUT_S)
            return free_s, time.monotonic() - game.started_s
        finally:
            game.end()

    def is_paused(self) -> bool:
        assert self.valet.client is not None
        return bool(self.valet.client.get("/watchdog")["state"] == "paused")

    def streaming_round(self) -> tuple[float, float]:
        """The same while a client reads an endless answer."""
        wait_until(self.runner_pid, "the large model loaded", TIMEOUT_S)
        has_begun = threading.Event()
        reader = threading.Thread(target=self.read_endlessly, args=(has_begun,), daemon=True)
        reader.start()
        if not has_begun.wait(TIMEOUT_S):
            raise SystemExit("the stream did not begin")
        figures = self.round()
        reader.join(TIMEOUT_S)
        if reader.is_alive():
            raise SystemExit("the stream did not end")
        return figures

    def read_endlessly(self, has_begun: threading.Event) -> None:
        address = urlsplit(self.valet.router_url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=TIMEOUT_S)
        body = {
            "model": LARGE,
            "messages": [{"role": "user", "content": "Tell a long story."}],
            "stream": True,
            "ignore_eos": True,
            "max_tokens": 100_000,
        }
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        while line := response.readline():
            if b'"content"' in line:
                has_begun.set()
        connection.close()


def kill_alone(home: DemoHome) -> float:
    """Seconds from a SIGKILL until the engine's memory is back, without a valet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    engine = embedded_engine(os.environ)
    flags = ["--model", str(home.models / f"{LARGE}.gguf"), "--port", str(port), "--load-mode", "none"]
    argv = [*engine.argv, *flags, "--ctx-size", "1024", "--parallel", "1", "--threads", "1"]
    process = subprocess.Popen(
        argv,
        env={**os.environ, **engine.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_healthy(port) or None, "the engine's health", TIMEOUT_S)
        started_s = time.monotonic()
        process.send_signal(signal.SIGKILL)
        return wait_until_free(process.pid, started_s)
    finally:
        process.kill()
        process.wait()
        if process.stdin:
            process.stdin.close()


def is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def summary(times_s: list[float]) -> dict[str, Any]:
    """p50, p99 (the largest below 100 values) and the maximum, in seconds."""
    ordered = sorted(times_s)
    p99 = statistics.quantiles(ordered, n=100)[98] if len(ordered) >= 100 else ordered[-1]
    return {"count": len(ordered), "p50_s": statistics.median(ordered), "p99_s": p99, "max_s": ordered[-1]}


def measure(rounds: int, streaming_rounds: int, baseline_rounds: int) -> dict[str, Any]:
    home = DemoHome()
    bench = Bench(home)
    try:
        baseline = [kill_alone(home) for _ in range(baseline_rounds)]
        bench.start()
        idle = [bench.round() for _ in range(rounds)]
        streaming = [bench.streaming_round() for _ in range(streaming_rounds)]
    finally:
        bench.valet.end()
        home.remove()
    times_s = {
        "baseline_sigkill": baseline,
        "idle": [free_s for free_s, _ in idle],
        "idle_said_paused": [said_s for _, said_s in idle],
        "streaming": [free_s for free_s, _ in streaming],
        "streaming_said_paused": [said_s for _, said_s in streaming],
    }
    return {name: summary(times) for name, times in times_s.items() if times}


def main() -> None:
    parser = argparse.ArgumentParser(description="Game start until a 379 MB model's memory is back.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--streaming-rounds", type=int, default=10)
    parser.add_argument("--baseline-rounds", type=int, default=20)
    options = parser.parse_args()
    if not Path("/proc").is_dir():
        sys.exit("This benchmark reads /proc.")
    found = measure(options.rounds, options.streaming_rounds, options.baseline_rounds)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    rows = [
        ("SIGKILL of the engine alone (baseline)", "baseline_sigkill", None),
        ("game starts, idle engine: memory back", "idle", TARGET_IDLE_S),
        ("game starts, idle engine: says paused", "idle_said_paused", None),
        (f"game starts, streaming (drain {DRAIN_S} s): memory back", "streaming", TARGET_STREAMING_S),
        (f"game starts, streaming (drain {DRAIN_S} s): says paused", "streaming_said_paused", None),
    ]
    print(f"{'':52} {'rounds':>6} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}  target p99")
    for label, key, target_s in rows:
        if key not in found:
            continue
        one = found[key]
        figures = " ".join(f"{one[name] * 1000:8.0f}" for name in ("p50_s", "p99_s", "max_s"))
        verdict = ""
        if target_s is not None:
            verdict = f"  {target_s * 1000:.0f} ms {'reached' if one['p99_s'] <= target_s else 'MISSED'}"
        print(f"{label:52} {one['count']:6} {figures}{verdict}")


if __name__ == "__main__":
    main()
