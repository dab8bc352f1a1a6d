"""How soon after its start a game is seen, how many are missed, and what the watching costs.

    python tests/benchmarks/detection.py [--json] [--starts 120] [--processes 400] [--idle-seconds 10]

A game is a copy of /bin/sleep in a folder of its own. A third are started directly, a third `exec`ed by a
shell that ran for up to 0.4 s before, a third forked by one. The time of a start is written by the very
process that becomes the game, just before its exec. Three watchers, one after the other, each in a process
of its own: the proc connector, the gated poll, and as the baseline psutil.process_iter(['exe']) at 4 Hz.
CPU is the watcher's own, user and system, first with nothing starting, then with the games.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GAME_S = 2
TARGETS_MS = {"connector": 20.0, "poll": 300.0}

# -- the watchers, each in its own process


async def watch_ours(is_connector_tried: bool, seen: dict[int, float], game: str) -> None:
    from tray_valet.core.processes import Process
    from tray_valet.sensing.linux_processes import LinuxProcesses
    from tray_valet.sensing.linux_watch import linux_watch

    def on_started(process: Process) -> None:
        if process.exe == game:
            seen.setdefault(process.identity.pid, time.time())

    watch = linux_watch(LinuxProcesses(), is_connector_tried=is_connector_tried)
    task = asyncio.create_task(watch.run(on_started, lambda _: None), name="watch")
    while watch.source == "not started":  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    await answer(f"{watch.source}; {watch.degraded_because}" if watch.degraded_because else watch.source)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def watch_naively(seen: dict[int, float], game: str) -> None:
    import psutil

    async def poll() -> None:
        while True:
            for process in psutil.process_iter(["exe"]):
                if process.info["exe"] == game:
                    seen.setdefault(process.pid, time.time())
            await asyncio.sleep(0.25)

    task = asyncio.create_task(poll(), name="naive poll")
    await asyncio.sleep(0.5)
    await answer("psutil.process_iter(['exe']) at 4 Hz")
    task.cancel()


async def answer(source: str) -> None:
    """Tell the source, then the CPU seconds used at every line that is asked for, until the end."""
    print(source, flush=True)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(time.process_time(), flush=True)


def watcher(kind: str, game: str) -> None:
    seen: dict[int, float] = {}
    if kind == "baseline":
        asyncio.run(watch_naively(seen, game))
    else:
        asyncio.run(watch_ours(kind == "connector", seen, game))
    print(json.dumps(seen), flush=True)


# -- the games

SHELL = {
    "exec'd": 'sleep "$1"; echo "$EPOCHREALTIME $BASHPID exec\'d" >>"$2"; exec "$0" "$3"',
    "forked": '( echo "$EPOCHREALTIME $BASHPID forked" >>"$2"; exec "$0" "$3" ) & wait',
}


def start_game(kind: str, game: str, log: str) -> int:
    """Start a game from a forked child of this single-threaded process; return that child's PID."""
    pid = os.fork()
    if pid:
        return pid
    try:
        if kind == "direct":
            line = f"{time.time():.6f} {os.getpid()} direct\n".encode()
            file = os.open(log, os.O_WRONLY | os.O_APPEND)
            os.write(file, line)
            os.close(file)
            os.execv(game, [game, str(GAME_S)])
        bash = shutil.which("bash") or "/bin/bash"
        delay = f"{random.random() * 0.4:.3f}"
        os.execv(bash, ["bash", "-c", SHELL[kind], game, delay, log, str(GAME_S)])
    finally:
        os._exit(127)


def start_games(count: int, game: str, log: str) -> None:
    """Start them one after the other, at times that have nothing to do with a poll's."""
    children = []
    for number in range(count):
        children.append(start_game(("direct", "exec'd", "forked")[number % 3], game, log))
        time.sleep(random.uniform(0.04, 0.14))
    for child in children:
        os.waitpid(child, 0)


def measure(kind: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one watcher against one round of games."""
    game = folder / kind / "thegame"
    game.parent.mkdir()
    shutil.copy("/bin/sleep", game)
    log = folder / f"{kind}.log"
    log.touch()
    with subprocess.Popen(
        [sys.executable, __file__, "--watcher", kind, "--game", str(game)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        stdin, stdout = child.stdin, child.stdout

        def cpu_s() -> float:
            stdin.write("\n")
            stdin.flush()
            return float(stdout.readline())

        source = stdout.readline().strip()
        time.sleep(1.0)
        marks = [(time.monotonic(), cpu_s())]
        time.sleep(options.idle_seconds)
        marks.append((time.monotonic(), cpu_s()))
        start_games(options.starts, str(game), str(log))
        marks.append((time.monotonic(), cpu_s()))
        stdin.close()
        seen = {int(pid): at for pid, at in json.loads(stdout.read()).items()}
    return {"watcher": kind, "source": source} | summarise(log, seen, TARGETS_MS.get(kind)) | shares(marks)


def summarise(log: Path, seen: dict[int, float], target_ms: float | None) -> dict[str, Any]:
    """Put the starts that the games wrote beside the sights that the watcher had, in milliseconds."""
    starts = [line.split() for line in log.read_text().splitlines()]
    latencies: dict[str, list[float]] = {"direct": [], "exec'd": [], "forked": []}
    for at, pid, how in starts:
        if int(pid) in seen:
            latencies[how].append((seen[int(pid)] - float(at)) * 1000)
    everything = [value for values in latencies.values() for value in values]
    return {
        "starts": len(starts),
        "missed": len(starts) - len(everything),
        "p50_ms": quantile(everything, 0.50),
        "p99_ms": quantile(everything, 0.99),
        "max_ms": quantile(everything, 1.0),
        "p99_ms_by_start": {how: quantile(values, 0.99) for how, values in latencies.items()},
        "target_p99_ms": target_ms,
    }


def shares(marks: list[tuple[float, float]]) -> dict[str, float]:
    """CPU in per cent of one core, from (time, CPU seconds) before and after each phase."""
    idle, busy = (
        100 * (after[1] - before[1]) / (after[0] - before[0]) for before, after in itertools.pairwise(marks)
    )
    return {"idle_cpu_pct": round(idle, 3), "busy_cpu_pct": round(busy, 3)}


def quantile(values: list[float], q: float) -> float | None:
    return round(sorted(values)[min(len(values) - 1, int(q * len(values)))], 2) if values else None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--starts", type=int, default=120)
    parser.add_argument("--processes", type=int, default=400, help="how many processes there are at least")
    parser.add_argument("--idle-seconds", type=float, default=10.0)
    parser.add_argument("--watcher", help=argparse.SUPPRESS)
    parser.add_argument("--game", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watcher:
        watcher(options.watcher, options.game)
        return 0
    if sys.platform != "linux":
        print("this measures Linux's watchers", file=sys.stderr)
        return 2
    there = sum(name.isdigit() for name in os.listdir("/proc"))
    crowd = [subprocess.Popen(["sleep", "3600"]) for _ in range(max(0, options.processes - there))]
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = [measure(kind, options, Path(folder)) for kind in ("connector", "poll", "baseline")]
    finally:
        for process in crowd:
            process.kill()
        for process in crowd:
            process.wait()
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        show(results)
    return 0 if all(is_reached(result) for result in results) else 1


def is_reached(result: dict[str, Any]) -> bool:
    target = result["target_p99_ms"]
    if target is None:
        return True
    return result["missed"] == 0 and result["p99_ms"] is not None and result["p99_ms"] <= target


def show(results: list[dict[str, Any]]) -> None:
    columns = ("watcher", "starts", "missed", "p50_ms", "p99_ms", "max_ms")
    columns += ("target_p99_ms", "idle_cpu_pct", "busy_cpu_pct")
    print("  ".join(f"{name:>13}" for name in columns))
    for result in results:
        print("  ".join(f"{result[name] if result[name] is not None else '-':>13}" for name in columns))
    for result in results:
        print(f"{result['watcher']}: {result['source']}; p99 by kind of start: {result['p99_ms_by_start']}")


if __name__ == "__main__":
    sys.exit(main())
