"""What the router costs: directly, through nginx and through the valet, in alternating rounds of one run.

    python tests/benchmarks/router.py [--json] [--quick] [--rounds 5] [--seconds 1] [--peer litellm]
                                      [--only rounds,streams,tray,loads,readers]

Upstream and load are small C programs (compiled here), nginx is a plain reverse proxy, the valet a real
`tray-valet serve` with a key set, metrics and request log as always. Proxies run on one core, load and
upstream on another. What is asked directly is a second upstream, on the proxies' core: else the wake-up of
another core, which costs more than an answer, would be in one figure and not in the other. `--peer litellm`
installs LiteLLM from PyPI into a folder of its own and puts it into the same rounds.

Ratios carry over to other machines, times don't. A target that is missed is marked; the exit code is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from _router_load import Generator, Target
from _router_peer import PEERS, LiteLlm, installed_litellm
from _router_rounds import Figures, alternate, chunk_cpu_us, stream_gaps_ms
from _router_scenes import beside_a_load, slow_readers_of_both, with_tray
from _router_table import (
    DIRECT,
    NGINX,
    VALET,
    Row,
    printed,
    rows_of_beside,
    rows_of_rounds,
    rows_of_slow,
    rows_of_streams,
    rows_of_tray,
)
from _router_tools import (
    LOAD_CORE,
    PROXY_CORE,
    Child,
    Nginx,
    Upstream,
    compiled,
    machine_busy_pct,
    move,
    needed,
)
from _router_valets import ValetProcess, settings_for

_C = TypeVar("_C", bound=Child)
_QUIET_PCT = 10.0
PARTS = ("rounds", "streams", "tray", "loads", "readers")


class Plan(msgspec.Struct, frozen=True):
    """How long what is measured; `seconds` is one target's share of one kind of request in one round."""

    rounds: int
    seconds: float
    parts: tuple[str, ...]
    peer: str | None

    @property
    def long_s(self) -> float:
        """For what is measured once."""
        return 8 * self.seconds


class Bench:
    """Everything that runs for the whole time, and the parts that use it."""

    def __init__(self, stack: ExitStack, plan: Plan, busy_pct: float) -> None:
        """`busy_pct`: what other programs do."""
        self._plan = plan
        self._stack = stack
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="valet-router-")))
        upstream, load = (compiled(name, self._folder) for name in ("_router_upstream", "_router_load"))
        self._generator = Generator(load, self._folder)
        self._upstream = self._ended(Upstream(upstream, LOAD_CORE))
        self._direct = self._ended(Upstream(upstream, PROXY_CORE))
        self._nginx = self._ended(Nginx(self._upstream.port, self._folder))
        self._valet = self._ended(ValetProcess(self._folder / "valet", settings_for(self._upstream.port)))
        self._at_nginx = Target(NGINX, self._nginx.whole_port, self._nginx.stream_port)
        self._at_valet = self._valet.target(VALET)
        self.notes: dict[str, Any] = {
            "busy_pct": busy_pct,
            "uvloop": self._valet.has_uvloop,
            "rounds": plan.rounds,
        }

    def measure(self) -> list[Row]:
        """The rows of every part that is asked for."""
        parts: dict[str, Callable[[], list[Row]]] = {
            "rounds": self._rounds,
            "streams": self._streams,
            "tray": self._tray,
            "loads": self._loads,
            "readers": self._readers,
        }
        rows: list[Row] = []
        for name in self._plan.parts:
            print(f"measuring: {name} …", file=sys.stderr)
            rows += parts[name]()
        self.notes["errors"] = self._generator.errors
        return rows

    def _ended(self, child: _C) -> _C:
        self._stack.callback(child.end)
        return child

    def _rounds(self) -> list[Row]:
        plan, direct = self._plan, Target(DIRECT, self._direct.port, self._direct.port)
        peers = []
        if plan.peer is not None:
            peers.append(
                self._ended(LiteLlm(installed_litellm(), self._upstream.port, self._folder)).target()
            )
        targets = [direct, self._at_nginx, self._at_valet]
        for target in (*targets, *peers):
            self._generator.run(target, seconds=1.0)  # warm
        figures = alternate(self._generator, targets, peers, rounds=plan.rounds, seconds=plan.seconds)
        for peer in peers:
            assert all(peer.name in figures[name] for name in ("whole_p50_us", "whole_64_per_s"))
        figures["one_core_p50_us"] = self._on_one_core()
        self.notes["requests counted by /metrics"] = _counted(self._valet.metrics())
        self.notes["figures"] = figures
        return rows_of_rounds(figures)

    def _on_one_core(self) -> dict[str, float]:
        """Sequential p50 with everything on the load's core: close to CPU time alone."""
        for pid in (self._nginx.pid, self._valet.pid):
            move(pid, LOAD_CORE)
        at_upstream = Target(DIRECT, self._upstream.port, self._upstream.port)
        try:
            once: Figures = {}
            for target in (at_upstream, self._at_nginx, self._at_valet):
                load = self._generator.run(target, seconds=2 * self._plan.seconds)
                assert load.latency is not None
                once.setdefault("p50", {})[target.name] = load.latency.p50
            return once["p50"]
        finally:
            for pid in (self._nginx.pid, self._valet.pid):
                move(pid, PROXY_CORE)

    def _streams(self) -> list[Row]:
        proxies = {NGINX: (self._at_nginx, self._nginx.pid), VALET: (self._at_valet, self._valet.pid)}
        seconds = self._plan.long_s / 2
        chunk_us = {
            name: chunk_cpu_us(self._generator, target, pid, seconds)
            for name, (target, pid) in proxies.items()
        }
        both = [self._at_nginx, self._at_valet]
        gaps_ms = stream_gaps_ms(self._generator, both, seconds, is_beside_prompts=True)
        alone_ms = stream_gaps_ms(self._generator, both, seconds, is_beside_prompts=False)
        return rows_of_streams(chunk_us, gaps_ms, alone_ms)

    def _tray(self) -> list[Row]:
        needed("dbus-daemon", "dbus")
        found = asyncio.run(with_tray(self._generator, self._upstream, self._folder, self._plan.long_s))
        return rows_of_tray(found)

    def _loads(self) -> list[Row]:
        return rows_of_beside(beside_a_load(self._generator, self._upstream, self._plan.long_s))

    def _readers(self) -> list[Row]:
        return rows_of_slow(
            slow_readers_of_both(
                self._generator, self._upstream, self._nginx, self._at_nginx, max(8.0, self._plan.long_s)
            )
        )


def _counted(metrics: str) -> float:
    """How many requests /metrics has counted."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("router_requests_total")
    )


def _plan() -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(description="The router beside nginx and a direct connection.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each kind of request in a round")
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    options = parser.parse_args()
    parts = tuple(part for part in options.only.split(",") if part)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    rounds, seconds = (2, 0.4) if options.quick else (options.rounds, options.seconds)
    return Plan(rounds, seconds, parts, options.peer), options.json


def main() -> None:
    plan, is_json = _plan()
    if sys.platform != "linux" or not {LOAD_CORE, PROXY_CORE} <= os.sched_getaffinity(0):
        raise SystemExit("This needs Linux and two cores: the proxies have one of their own.")
    busy_pct = machine_busy_pct()
    with ExitStack() as stack:
        bench = Bench(stack, plan, busy_pct)
        rows = bench.measure()
    if is_json:
        print(json.dumps({"rows": msgspec.to_builtins(rows), **bench.notes}, indent=2))
        return
    print(printed(rows))
    if "requests counted by /metrics" in bench.notes:
        print(f"requests counted by /metrics: {bench.notes['requests counted by /metrics']:,.0f}")
    if bench.notes["errors"]:
        print(f"answers that were errors: {bench.notes['errors']}")
    if busy_pct > _QUIET_PCT:
        print(f"Other programs kept {busy_pct:.0f} % of this machine busy: no figure is to be trusted.")
    print(f"uvloop in the valet: {'yes' if bench.notes['uvloop'] else 'NO'}; medians of {plan.rounds} rounds")


if __name__ == "__main__":
    main()
