"""How much of its speed a busy game keeps while a runner on the CPU generates beside it.

    python tests/benchmarks/busy_game.py [--json] [--rounds 10] [--window 2]

The game-like process keeps every core busy with frames of the same work and counts them. It runs on through
all rounds; in every second window a 379 MB model, loaded as it is during a game (`is_in_background`: few
threads, idle CPU and I/O priority), streams an endless answer. Windows alternate, so that whatever else the
machine does meets both. As a comparison, in the same run: the same model at the usual priority and threads.
Target: at least 98 % of the frames.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil

from tray_valet.core.config_providers import LlamaServerModelSettings, LlamaServerSettings
from tray_valet.core.models import LoadRequest
from tray_valet.desktop.child_tie import system_child_tie
from tray_valet.desktop.cpu_priority import system_cpu_priority
from tray_valet.engine.locate import embedded_engine
from tray_valet.engine.tiny_model import LARGE, write_tiny_model
from tray_valet.providers.llama_server import LlamaServerProvider
from tray_valet.providers.runner_records import RunnerRecords
from tray_valet.services.clock import SystemClock

TARGET_RATIO = 0.98
SETTLE_S = 0.3  # between windows: the engine stops, the caches are the game's again
PORT = 18_985
# One worker a core; each frame hashes 256 KB, which needs no interpreter lock. Prints its count when asked.
GAME = """
import hashlib, multiprocessing, os, sys
def work(count):
    data = bytes(262_144)
    while True:
        hashlib.sha256(data).digest()
        count.value += 1
counts = [multiprocessing.Value("Q", 0, lock=False) for _ in range(os.cpu_count() or 1)]
workers = [multiprocessing.Process(target=work, args=(count,), daemon=True) for count in counts]
for worker in workers:
    worker.start()
for _ in sys.stdin:
    print(sum(count.value for count in counts), flush=True)
for worker in workers:
    worker.kill()
"""


class BusyGame:
    """The game-like process, in a session of its own as a started game is."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", GAME],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def frames(self) -> int:
        """Frames since the start."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    async def rate(self, window_s: float) -> float:
        """Frames a second over a window."""
        loop = asyncio.get_running_loop()
        before, begun_s = self.frames(), loop.time()
        await asyncio.sleep(window_s)
        return (self.frames() - before) / (loop.time() - begun_s)

    def end(self) -> None:
        self._process.communicate(timeout=10)


def new_provider(folder: Path) -> LlamaServerProvider:
    from tray_valet.sensing.linux_processes import LinuxProcesses

    write_tiny_model(folder / "large.gguf", LARGE)
    flags = ("--ctx-size", "32768", "--load-mode", "none")
    model = LlamaServerModelSettings(model_path="large.gguf", flags=flags, cpu_only=True)
    return LlamaServerProvider(
        "local",
        LlamaServerSettings(base_models_path=str(folder), first_port=PORT, models={"large": model}),
        locate=lambda _path: embedded_engine(os.environ),
        base_dir=folder,
        environ=os.environ,
        table=LinuxProcesses(),
        tie=system_child_tie(),
        records=RunnerRecords(folder / "runners.json"),
        clock=SystemClock(),
        priority=system_cpu_priority(),
    )


@contextlib.asynccontextmanager
async def generating(provider: LlamaServerProvider) -> AsyncIterator[list[int]]:
    """Stream endless answers meanwhile; the list grows by one for each piece that came."""
    upstream = provider.upstream("large")
    pieces: list[int] = []
    body = {
        "messages": [{"role": "user", "content": "Tell me all."}],
        "stream": True,
        "ignore_eos": True,
        "cache_prompt": False,
    }

    async def read() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=None, headers=upstream.headers) as client:
            while True:
                async with client.stream(
                    "POST", f"{upstream.base_url}/v1/chat/completions", json=body
                ) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("data:"):
                            pieces.append(1)

    reading = asyncio.create_task(read(), name="generate")
    try:
        await asyncio.sleep(SETTLE_S)
        yield pieces
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def cpu_s(provider: LlamaServerProvider) -> float:
    """CPU seconds that the runner has used."""
    times = [psutil.Process(runner.pid).cpu_times() for runner in await provider.runners()]
    return sum(t.user + t.system for t in times)


async def ratios(
    game: BusyGame, provider: LlamaServerProvider, rounds: int, window_s: float
) -> tuple[list[float], float, float]:
    """(frames beside the runner / frames alone, by round; pieces a second that the runner got out; CPU
    seconds that it got a second)."""
    found, pieces_in_all, used_s = [], 0, 0.0
    for _ in range(rounds):
        await asyncio.sleep(SETTLE_S)
        alone = await game.rate(window_s)
        async with generating(provider) as pieces:
            before, used_before_s = len(pieces), await cpu_s(provider)
            beside = await game.rate(window_s)
            pieces_in_all += len(pieces) - before
            used_s += await cpu_s(provider) - used_before_s
        found.append(beside / alone)
    return found, pieces_in_all / (rounds * window_s), used_s / (rounds * window_s)


async def measure(rounds: int, window_s: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="busy-game-") as folder:
        provider = new_provider(Path(folder))
        game = BusyGame()
        try:
            await provider.load(LoadRequest(model="large", is_in_background=True))
            behind, behind_rate, behind_cpu = await ratios(game, provider, rounds, window_s)
            await provider.load(LoadRequest(model="large"))
            usual, usual_rate, usual_cpu = await ratios(game, provider, max(2, rounds // 3), window_s)
        finally:
            game.end()
            await provider.close()
    ratio = statistics.median(behind)
    return {
        "cores": multiprocessing.cpu_count(),
        "frames_kept": round(ratio, 4),
        "frames_kept_lowest": round(min(behind), 4),
        "target": TARGET_RATIO,
        "is_met": ratio >= TARGET_RATIO,
        "pieces_per_s": round(behind_rate, 1),
        "cores_used": round(behind_cpu, 3),
        "frames_kept_at_usual_priority": round(statistics.median(usual), 4),
        "pieces_per_s_at_usual_priority": round(usual_rate, 1),
        "cores_used_at_usual_priority": round(usual_cpu, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--window", type=float, default=2.0, help="seconds")
    arguments = parser.parse_args()
    result = asyncio.run(measure(arguments.rounds, arguments.window))
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name.replace('_', ' '):34} {value}")
    return 0 if result["is_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
