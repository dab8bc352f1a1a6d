"""What the tray costs: memory, the start until the icon is on the panel, and 2,000 changes in 3 s.

    python tests/benchmarks/tray.py [--json] [--starts 5] [--changes 2000] [--seconds 3] [--idle 5]

The valet is `tray-valet` in a temporary home, on a session bus of its own with the tests' panel. The
baseline, in the same run, is `tray-valet serve`: the same without a tray. A start is measured from the spawn
of the process until the icon has registered itself, of the baseline until its API answers. The changes are
pauses and resumes of the whole valet, made inside it as evenly as the machine allows; there are two rounds,
since bounded lists fill up in the first. Signals are what the panel was sent; nothing is queued when they are
few and the last state is shown at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from _servers import ROOT, START_TIMEOUT_S, Server, valet

sys.path.insert(0, str(ROOT))  # the tests' bus and panel

from tests.tray.session_bus import Panel, session_bus

TARGET_RSS_MB, TARGET_START_S = 75.0, 1.0
LAST = "at most"  # in the tooltip of the last pause of a round, which alone has an end
TRAY = ("-m", "tray_valet")
TOLD = (str(Path(__file__).with_name("_told_valet.py")),)


def rss_mb(server: Server) -> float:
    return float(psutil.Process(server.process.pid).memory_info().rss / 2**20)


class Desk:
    """A home and a session bus to start valets on."""

    def __init__(self, home: Path, bus: str) -> None:
        self._home = home
        self._bus = bus

    def tray(self, arguments: tuple[str, ...] = TRAY, *, is_told: bool = False) -> Server:
        """A valet with a tray, without any display."""
        environ = {"DBUS_SESSION_BUS_ADDRESS": self._bus, "DISPLAY": "", "WAYLAND_DISPLAY": ""}
        environ["PYTHONPATH"] = str(ROOT)
        return valet(self._home, arguments, environ=environ, is_told=is_told)

    def serve(self) -> Server:
        """The same without."""
        return valet(self._home)

    async def panel(self) -> Panel:
        return await Panel.start(self._bus)


async def registered_s(server: Server, panel: Panel) -> float:
    """Seconds from the spawn until the icon was registered."""
    await asyncio.wait_for(panel.registered.wait(), START_TIMEOUT_S)
    return time.perf_counter() - server.started_s


async def start_times_s(desk: Desk, rounds: int) -> dict[str, list[float]]:
    """Both in turn; one start each before, to warm the disk cache."""
    times: dict[str, list[float]] = {"tray": [], "serve": []}
    for round_number in range(rounds + 1):
        for name, into in times.items():
            panel = await desk.panel()
            server = desk.tray() if name == "tray" else desk.serve()
            try:
                if name == "tray":
                    took_s = await registered_s(server, panel)
                else:
                    took_s = await asyncio.to_thread(server.wait_until_it_answers)
            finally:
                await asyncio.to_thread(server.end)
                await panel.stop()
            if round_number > 0:
                into.append(took_s)
    return times


async def idle_mb(desk: Desk, idle_s: float) -> dict[str, float]:
    """RSS in MB of each after `idle_s` seconds in which nothing happened, one after the other."""
    found = {}
    for name, start in (("tray", desk.tray), ("serve", desk.serve)):
        panel = await desk.panel()
        server = start()
        try:
            await asyncio.to_thread(server.wait_until_it_answers)
            if name == "tray":
                await panel.item()
            await asyncio.sleep(idle_s)
            found[name] = rss_mb(server)
        finally:
            await asyncio.to_thread(server.end)
            await panel.stop()
    return found


async def bursts(desk: Desk, count: int, seconds: float, idle_s: float) -> list[dict[str, float]]:
    """Two rounds of changes; what each has left behind."""
    panel = await desk.panel()
    server = desk.tray(TOLD, is_told=True)
    try:
        await asyncio.to_thread(server.wait_until_it_answers)
        await panel.item()
        await asyncio.sleep(idle_s)
        return [await burst(server, panel, count, seconds) for _ in range(2)]
    finally:
        await asyncio.to_thread(server.end)
        await panel.stop()


async def burst(server: Server, panel: Panel, count: int, seconds: float) -> dict[str, float]:
    assert server.process.stdin is not None
    assert server.process.stdout is not None
    before_mb = rss_mb(server)
    panel.signals.clear()
    server.process.stdin.write(f"{count} {seconds}\n")
    server.process.stdin.flush()
    answer = json.loads(await asyncio.to_thread(server.process.stdout.readline))
    told_s = time.perf_counter()
    async with asyncio.timeout(START_TIMEOUT_S):
        while LAST not in (await panel.properties())["ToolTip"][3]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    shown_s = time.perf_counter() - told_s
    await asyncio.sleep(1)  # what is still to be sent is sent
    after_mb = rss_mb(server)
    return {
        **answer,
        "signals": len(panel.signals),
        "shown_s": shown_s,
        "rss_mb": after_mb,
        "growth_mb": after_mb - before_mb,
    }


async def measure(starts: int, count: int, seconds: float, idle_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="valet-tray-") as folder, session_bus(Path(folder)) as bus:
        desk = Desk(Path(folder), bus)
        times = await start_times_s(desk, starts)
        idle = await idle_mb(desk, idle_s)
        rounds = await bursts(desk, count, seconds, idle_s)
    found: dict[str, Any] = {
        name: {
            "rss_mb": idle[name],
            "start_s_median": statistics.median(times[name]),
            "start_s_max": max(times[name]),
        }
        for name in times
    }
    return {**found, "changes": rounds}


def report(found: dict[str, Any], starts: int) -> None:
    rows = [
        ("RSS when idle, window closed", "rss_mb", "MB", TARGET_RSS_MB),
        (f"start to icon (to answer), median of {starts}", "start_s_median", "s", TARGET_START_S),
        (f"start to icon (to answer), slowest of {starts}", "start_s_max", "s", TARGET_START_S),
    ]
    print(f"{'':46} {'tray':>11} {'serve':>11} {'target':>11}")
    for label, key, unit, target in rows:
        ours, bare = (f"{found[name][key]:8.2f} {unit:2}" for name in ("tray", "serve"))
        print(f"{label:46} {ours} {bare} {target:8.1f} {unit:2} {verdict(found['tray'][key], target)}")
    for number, change in enumerate(found["changes"], 1):
        rss = change["rss_mb"]
        print(f"{change['state_changes']} changes of state, round {number}, in {change['took_s']:.2f} s")
        limit = f"{TARGET_RSS_MB:8.1f} MB {verdict(rss, TARGET_RSS_MB)}"
        print(f"{'  RSS after them':46} {rss:8.2f} MB {'':11} {limit}")
        print(f"{'  growth of it':46} {change['growth_mb']:+8.2f} MB")
        print(f"{'  signals to the panel':46} {change['signals']:5}")
        print(f"{'  last state shown after':46} {change['shown_s']:8.2f} s")


def verdict(value: float, target: float) -> str:
    return "reached" if value <= target else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="RSS and start of the valet with its tray, and many changes."
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--changes", type=int, default=2000, help="changes of state a round")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--idle", type=float, default=5)
    options = parser.parse_args()
    found = asyncio.run(measure(options.starts, options.changes, options.seconds, options.idle))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    report(found, options.starts)


if __name__ == "__main__":
    main()
