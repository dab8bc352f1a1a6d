"""What takes a valet of its own: with its tray, beside a model that loads, and with slow readers.

Must not: judge figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from _router_load import Generator, Load, Series, Target
from _router_tools import Nginx, Upstream, rss_bytes
from _router_valets import TRAY, ValetProcess, settings_for
from _servers import ROOT

sys.path.insert(0, str(ROOT))  # the tests' bus and panel

from tests.tray.session_bus import Panel, session_bus
from tray_valet.commands.demo_home import LARGE, TINY, DemoHome

READERS = 64
_TRAY_RUNS = 3
_READ_BYTES_S = 2000
_CHUNK_BYTES = 1024


class TrayFigures(msgspec.Struct, frozen=True):
    """Medians of the runs. `signals` are what the panel was told: the icon's redraws, changes of its text.

    `still_p99_us`: of a run before, in which nothing was redrawn.
    """

    p50_us: float
    p99_us: float
    still_p99_us: float
    signals: int
    seconds: float


async def with_tray(generator: Generator, upstream: Upstream, folder: Path, seconds: float) -> TrayFigures:
    """Sequential requests to a provider that a pause leaves alone, while holds make the tray redraw."""
    with session_bus(folder) as bus:
        panel = await Panel.start(bus)
        environ = {"DBUS_SESSION_BUS_ADDRESS": bus, "DISPLAY": "", "WAYLAND_DISPLAY": ""}
        settings = settings_for(upstream.port, is_local=False)
        valet = await asyncio.to_thread(
            lambda: ValetProcess(folder / "tray", settings, command=TRAY, environ=environ)
        )
        try:
            await panel.item()
            still = await _runs(generator, valet, seconds)
            panel.signals.clear()
            holding = asyncio.create_task(_hold_in_turn(valet), name="holds in turn")
            begin_s = time.monotonic()
            loads = await _runs(generator, valet, seconds)
            took_s, signals = time.monotonic() - begin_s, len(panel.signals)
            holding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await holding
        finally:
            await asyncio.to_thread(valet.end)
            await panel.stop()
    p50_us = statistics.median(series.p50 for series in loads)
    p99_us = statistics.median(series.p99 for series in loads)
    return TrayFigures(p50_us, p99_us, statistics.median(series.p99 for series in still), signals, took_s)


async def _runs(generator: Generator, valet: ValetProcess, seconds: float) -> list[Series]:
    loads = [
        await asyncio.to_thread(generator.run, valet.target(), seconds=seconds / _TRAY_RUNS)
        for _ in range(_TRAY_RUNS)
    ]
    return [load.latency for load in loads if load.latency is not None]


async def _hold_in_turn(valet: ValetProcess) -> None:
    """A hold for a second, none for a second, and so on, until cancelled."""
    while True:
        body = {"owner": "benchmark", "reason": "the icon is to be redrawn", "ttl_seconds": 60}
        hold = await asyncio.to_thread(valet.control, "POST", "/holds", body)
        await asyncio.sleep(1)
        await asyncio.to_thread(valet.control, "DELETE", f"/holds/{hold['id']}")
        await asyncio.sleep(1)


class BesideFigures(msgspec.Struct, frozen=True):
    """Latencies in ms of ready models: `engine` is a real one, `bare` the C upstream behind that router."""

    engine_alone_p99_ms: float
    engine_p99_ms: float
    bare_alone_p99_ms: float
    bare_p99_ms: float
    loads: int


def beside_a_load(generator: Generator, upstream: Upstream, seconds: float) -> BesideFigures:
    """Sequential requests to ready models while a 379 MB model is loaded and ejected in turn."""
    home = DemoHome()
    try:
        home.write_models()
        home.write_settings()
        demo = json.loads(home.config.read_text())
        plain = settings_for(upstream.port)
        settings = {**demo, **plain, "providers": {**demo["providers"], **plain["providers"]}}
        valet = ValetProcess(home.valet_home, settings, core=None)
        try:
            engine, bare = valet.target("engine", TINY), valet.target("bare")
            return _beside(generator, valet, engine, bare, seconds)
        finally:
            valet.end()
    finally:
        home.remove()


def _beside(
    generator: Generator, valet: ValetProcess, engine: Target, bare: Target, seconds: float
) -> BesideFigures:
    valet.control("POST", "/load", {"model": TINY})
    short: dict[str, Any] = {"fields": {"max_tokens": 1}, "prompt_bytes": 40}
    found, loads = {}, 0
    for target in (engine, bare):
        found[target.name, "alone"] = _p99_ms(generator.run(target, seconds=seconds / 2, **short))
        running = generator.start(target, seconds=seconds, **short)
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            valet.control("POST", "/load", {"model": LARGE})
            valet.control("POST", "/unload", {"model": LARGE})
            loads += 1
        found[target.name, "beside"] = _p99_ms(running.finish())
    return BesideFigures(
        found["engine", "alone"],
        found["engine", "beside"],
        found["bare", "alone"],
        found["bare", "beside"],
        loads,
    )


def _p99_ms(load: Load) -> float:
    assert load.latency is not None
    return load.latency.p99 / 1000


class SlowFigures(msgspec.Struct, frozen=True):
    """A stream's share: growth of the proxy's memory, and what the engine was let write ahead of the reader.

    `late_bytes` is what the engine wrote in the second half of the time beyond what was read in it.
    """

    rss_bytes: float
    ahead_bytes: float
    late_bytes: float


def slow_readers(
    generator: Generator, upstream: Upstream, target: Target, pid: int, seconds: float
) -> SlowFigures:
    """64 endless streams to readers of 2 KB/s each."""
    generator.run(target, seconds=0.5, connections=READERS, is_stream=True)
    before_bytes, sent_bytes = rss_bytes(pid), upstream.counters()["stream_bytes"]
    running = generator.start(
        target,
        seconds=seconds,
        connections=READERS,
        is_stream=True,
        fields={"bench_chunks": 10**9, "bench_bytes": _CHUNK_BYTES},
        warm_up=0,
        slow_bytes_s=_READ_BYTES_S,
    )
    most_bytes, middle_bytes = before_bytes, 0
    begin_s = time.monotonic()
    while (passed_s := time.monotonic() - begin_s) < seconds - 0.3:
        time.sleep(0.1)
        most_bytes = max(most_bytes, rss_bytes(pid))
        if not middle_bytes and passed_s >= seconds / 2:
            middle_bytes = upstream.counters()["stream_bytes"] - sent_bytes
            middle_s = passed_s
    all_bytes = upstream.counters()["stream_bytes"] - sent_bytes
    read_late_bytes = READERS * _READ_BYTES_S * (time.monotonic() - begin_s - middle_s)
    load = running.finish()
    return SlowFigures(
        rss_bytes=(most_bytes - before_bytes) / READERS,
        ahead_bytes=(all_bytes - load.body_bytes) / READERS,
        late_bytes=max(0.0, all_bytes - middle_bytes - read_late_bytes) / READERS,
    )


def slow_readers_of_both(
    generator: Generator, upstream: Upstream, nginx: Nginx, target: Target, seconds: float
) -> dict[str, SlowFigures]:
    """The same for a valet that has done nothing yet, and for nginx."""
    with tempfile.TemporaryDirectory(prefix="valet-slow-") as folder:
        valet = ValetProcess(Path(folder), settings_for(upstream.port))
        try:
            ours = slow_readers(generator, upstream, valet.target(), valet.pid, seconds)
        finally:
            valet.end()
    time.sleep(0.5)
    return {"valet": ours, "nginx": slow_readers(generator, upstream, target, nginx.pid, seconds)}
