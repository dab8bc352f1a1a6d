"""The alternating rounds: every target in turn, the same requests, medians of the rounds.

Must not: start anything but the load, or judge figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from _router_load import Generator, Load, Target
from _router_tools import cpu_s

SMALL, LARGER, LARGE = 700, 100_000, 5_000_000  # bytes of prompt; the first makes a body of about 1 KB
PACED = {"bench_gap_us": 1000}
_PEER_S = 3.0  # they answer some hundred times less often
_CPU_STREAMS, _CPU_GAP_US = 32, 2000
_GAP_STREAMS, _GAP_US, _GAP_ROUNDS = 8, 5000, 3


class Work(msgspec.Struct, frozen=True):
    """One kind of request, and which of its figures are kept."""

    name: str
    options: dict[str, Any]
    figures: dict[str, Callable[[Load], float]]
    weight: float = 1.0
    is_for_peers: bool = True


def _p50(load: Load) -> float:
    assert load.latency is not None
    return load.latency.p50


def _p99(load: Load) -> float:
    assert load.latency is not None
    return load.latency.p99


def _first(load: Load) -> float:
    assert load.first is not None
    return load.first.p50


def _per_s(load: Load) -> float:
    return load.per_s


_STREAM = {"is_stream": True}
WORKS = (
    Work("whole, sequential", {}, {"whole_p50_us": _p50, "whole_p99_us": _p99}),
    Work("whole, 16 connections", {"connections": 16}, {"whole_16_per_s": _per_s}),
    Work("whole, 64 connections", {"connections": 64}, {"whole_64_per_s": _per_s}, 1.5),
    Work(
        "stream, sequential, paced",
        {**_STREAM, "fields": PACED, "warm_up": 2},
        {"paced_first_p50_us": _first},
        1.5,
        is_for_peers=False,
    ),
    Work("stream, sequential", _STREAM, {"stream_first_p50_us": _first, "stream_p50_us": _p50}),
    Work("stream, 16 connections", {**_STREAM, "connections": 16}, {"stream_16_per_s": _per_s}),
    Work("stream, 64 connections", {**_STREAM, "connections": 64}, {"stream_64_per_s": _per_s}),
    Work(
        "100 KB, sequential",
        {"prompt_bytes": LARGER},
        {"prompt_100kb_p50_us": _p50},
        is_for_peers=False,
    ),
    Work(
        "5 MB, sequential",
        {"prompt_bytes": LARGE, "warm_up": 2},
        {"prompt_5mb_p50_us": _p50},
        1.5,
        is_for_peers=False,
    ),
)
Figures = dict[str, dict[str, float]]  # figure → target → value


def alternate(
    generator: Generator, targets: Sequence[Target], peers: Sequence[Target], *, rounds: int, seconds: float
) -> Figures:
    """Medians over the rounds; who begins changes from round to round."""
    seen: dict[str, dict[str, list[float]]] = {}
    everyone = [*targets, *peers]
    for number in range(rounds):
        begins = number % len(everyone)
        for work in WORKS:
            for target in (*everyone[begins:], *everyone[:begins]):
                if target in peers and not work.is_for_peers:
                    continue
                share_s = max(seconds, _PEER_S) if target in peers else seconds
                load = generator.run(target, seconds=share_s * work.weight, **work.options)
                for figure, value_of in work.figures.items():
                    seen.setdefault(figure, {}).setdefault(target.name, []).append(value_of(load))
    return {
        figure: {name: statistics.median(values) for name, values in by_target.items()}
        for figure, by_target in seen.items()
    }


def chunk_cpu_us(generator: Generator, target: Target, pid: int, seconds: float) -> float:
    """CPU time per streamed chunk in µs, each chunk by itself: requests' own cost included."""
    generator.run(target, seconds=0.5, is_stream=True)
    before_s = cpu_s(pid)
    load = generator.run(
        target,
        seconds=seconds,
        connections=_CPU_STREAMS,
        is_stream=True,
        fields={"bench_gap_us": _CPU_GAP_US},
        warm_up=0,
    )
    return (cpu_s(pid) - before_s) / load.chunks * 1e6


def stream_gaps_ms(
    generator: Generator, targets: Sequence[Target], seconds: float, *, is_beside_prompts: bool
) -> dict[str, float]:
    """p99 gaps of 8 streams, whose chunks come every 5 ms, while 5 MB prompts go through the same proxy."""
    seen: dict[str, list[float]] = {target.name: [] for target in targets}
    for _ in range(_GAP_ROUNDS):
        for target in targets:
            streams = generator.start(
                target,
                seconds=seconds / _GAP_ROUNDS,
                connections=_GAP_STREAMS,
                is_stream=True,
                fields={"bench_gap_us": _GAP_US},
                warm_up=0,
            )
            if is_beside_prompts:
                generator.run(target, seconds=seconds / _GAP_ROUNDS, prompt_bytes=LARGE, warm_up=0)
            load = streams.finish()
            assert load.gap is not None
            seen[target.name].append(load.gap.p99 / 1000)
    return {name: statistics.median(values) for name, values in seen.items()}
