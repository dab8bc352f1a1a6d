"""What the idle valet costs: resident memory, CPU with many processes around, and how soon its API answers.

    python tests/benchmarks/footprint.py [--json] [--seconds 60] [--processes 400] [--starts 5]

The valet is `tray-valet serve` in a temporary home with one provider and nothing loaded. The baseline, in the
same run, is one trivial Starlette route on uvicorn. A start is measured from the spawn of the process to the
first answer; memory is the RSS after the idle time; CPU is the process's own, user and system, as a share of
one core, while the sleeping processes stand around (they start before the measurement). Every process that
starts on the machine is looked at, so how many did is printed too: measure on a quiet one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from _servers import baseline, valet

TARGET_RSS_MB, TARGET_CPU_PCT, TARGET_START_S = 60.0, 0.5, 1.0
SETTLE_S = 5.0


def start_times_s(rounds: int, home: Path) -> dict[str, list[float]]:
    """Both servers in turn, from spawn to answer; one start each before, to warm the disk cache."""
    times: dict[str, list[float]] = {"valet": [], "baseline": []}
    for round_number in range(rounds + 1):
        for name in times:
            server = valet(home) if name == "valet" else baseline()
            try:
                took_s = server.wait_until_it_answers()
            finally:
                server.end()
            if round_number > 0:
                times[name].append(took_s)
    return times


def idle_figures(seconds: float, home: Path) -> dict[str, dict[str, float]]:
    """RSS in MB and CPU in per cent of a core over `seconds`, of both servers at the same time."""
    servers = {"valet": valet(home), "baseline": baseline()}
    try:
        for server in servers.values():
            server.wait_until_it_answers()
        time.sleep(SETTLE_S)
        processes = {name: psutil.Process(server.process.pid) for name, server in servers.items()}
        before = {name: cpu_s(process) for name, process in processes.items()}
        forks_before = forks()
        time.sleep(seconds)
        forks_meanwhile = forks() - forks_before
        return {
            name: {
                "cpu_pct": 100 * (cpu_s(process) - before[name]) / seconds,
                "rss_mb": process.memory_info().rss / 2**20,
                "forks_meanwhile": forks_meanwhile,
            }
            for name, process in processes.items()
        }
    finally:
        for server in servers.values():
            server.end()


def forks() -> int:
    """How many processes and threads the machine has ever started; 0 where it does not tell."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("processes "))


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(seconds: float, process_count: int, starts: int) -> dict[str, Any]:
    crowd: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="valet-footprint-") as folder:
        try:
            times = start_times_s(starts, Path(folder))
            crowd += (subprocess.Popen(["sleep", "3600"]) for _ in range(process_count))
            figures = idle_figures(seconds, Path(folder))
        finally:
            for process in crowd:
                process.kill()
            for process in crowd:
                process.wait()
    return {
        name: {
            **figures[name],
            "start_s_median": statistics.median(times[name]),
            "start_s_max": max(times[name]),
        }
        for name in figures
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="RSS, idle CPU and start of the valet.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=400)
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    found = measure(options.seconds, options.processes, options.starts)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    rows = [
        ("RSS", "rss_mb", "MB", TARGET_RSS_MB),
        (
            f"idle CPU over {options.seconds:.0f} s, {options.processes} processes",
            "cpu_pct",
            "%",
            TARGET_CPU_PCT,
        ),
        (f"start to first answer, median of {options.starts}", "start_s_median", "s", TARGET_START_S),
        (f"start to first answer, slowest of {options.starts}", "start_s_max", "s", TARGET_START_S),
    ]
    meanwhile = found["valet"]["forks_meanwhile"]
    print(f"Processes and threads that others started on this machine meanwhile: {meanwhile}")
    print(f"{'':46} {'valet':>10} {'bare server':>12} {'target':>10}")
    for label, key, unit, target in rows:
        ours, bare = found["valet"][key], found["baseline"][key]
        verdict = "reached" if ours <= target else "MISSED"
        print(f"{label:46} {ours:8.2f} {unit:1} {bare:10.2f} {unit:1} {target:8.1f} {unit}  {verdict}")


if __name__ == "__main__":
    main()
