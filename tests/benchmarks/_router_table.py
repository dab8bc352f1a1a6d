"""The router's figures beside their targets.

Decides: which figure is compared with what. Must not: measure.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

import msgspec
from _router_rounds import Figures
from _router_scenes import BesideFigures, SlowFigures, TrayFigures

VALET, DIRECT, NGINX, LITELLM = "valet", "direct", "nginx", "litellm"
_STREAM_SHARE_BYTES = (
    1024 * 1024
)  # what is unread, what is unsent, and a piece between: asyncio reads 256 KiB at once
_LATE_BYTES = 64 * 1024


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `ratio` is value / baseline; `is_met` None = there is no target."""

    figure: str
    unit: str
    value: float
    baseline_name: str = ""
    baseline: float | None = None
    ratio: float | None = None
    target: str = ""
    is_met: bool | None = None


def ratio(
    figure: str,
    unit: str,
    values: Mapping[str, float],
    other: str,
    limit: float | None = None,
    *,
    is_least: bool = False,
) -> Row:
    """The valet's figure over another's; `limit` is the ratio's largest value, or its least."""
    value, baseline = values[VALET], values[other]
    quotient = value / baseline if baseline else float("inf")
    fits = operator.ge if is_least else operator.le
    return Row(
        figure=figure,
        unit=unit,
        value=value,
        baseline_name=other,
        baseline=baseline,
        ratio=quotient,
        target="" if limit is None else f"{'≥' if is_least else '≤'} {limit:g} ×",
        is_met=None if limit is None else fits(quotient, limit),
    )


def bound(
    figure: str, unit: str, value: float, limit: float, other: str = "", baseline: float | None = None
) -> Row:
    """A figure with a largest value; the baseline is for comparison."""
    return Row(
        figure=figure,
        unit=unit,
        value=value,
        baseline_name=other,
        baseline=baseline,
        ratio=value / baseline if baseline else None,
        target=f"≤ {limit:g} {unit}",
        is_met=value <= limit,
    )


_Ratios = tuple[tuple[str, str, str, Mapping[str, float | None], bool], ...]
_RATIOS: _Ratios = (
    (
        "whole answer, 1 KB, sequential, p50",
        "µs",
        "whole_p50_us",
        {DIRECT: 3.5, NGINX: 1.7, LITELLM: 1 / 20},
        False,
    ),
    ("the same, p99", "µs", "whole_p99_us", {DIRECT: None, NGINX: None, LITELLM: None}, False),
    ("throughput, 16 connections", "1/s", "whole_16_per_s", {NGINX: None, LITELLM: None}, True),
    ("throughput, 64 connections", "1/s", "whole_64_per_s", {NGINX: 0.11, LITELLM: 50}, True),
    ("first byte, stream of 1 ms gaps, p50", "µs", "paced_first_p50_us", {DIRECT: None, NGINX: None}, False),
    (
        "first byte, stream without gaps, p50",
        "µs",
        "stream_first_p50_us",
        {DIRECT: None, NGINX: 1.3, LITELLM: None},
        False,
    ),
    (
        "stream of 64 chunks, sequential, p50",
        "µs",
        "stream_p50_us",
        {DIRECT: None, NGINX: None, LITELLM: None},
        False,
    ),
    ("streams, 16 connections", "1/s", "stream_16_per_s", {NGINX: None, LITELLM: None}, True),
    ("streams, 64 connections", "1/s", "stream_64_per_s", {NGINX: None, LITELLM: None}, True),
    ("100 KB prompt, p50", "µs", "prompt_100kb_p50_us", {DIRECT: None, NGINX: None}, False),
    ("5 MB prompt, p50", "µs", "prompt_5mb_p50_us", {DIRECT: 6, NGINX: None}, False),
    ("whole answer, all on one core, p50", "µs", "one_core_p50_us", {DIRECT: None, NGINX: None}, False),
)


def rows_of_rounds(figures: Figures) -> list[Row]:
    """The rows of the alternating rounds, peers' where there was one."""
    return [
        ratio(label, unit, figures[figure], other, limit, is_least=is_least)
        for label, unit, figure, limits, is_least in _RATIOS
        for other, limit in limits.items()
        if figure in figures and other in figures[figure]
    ]


def rows_of_streams(
    chunk_us: Mapping[str, float], gaps_ms: Mapping[str, float], alone_ms: Mapping[str, float]
) -> list[Row]:
    """CPU per chunk, and the gaps of streams beside large prompts."""
    beside = "p99 gap of 5 ms streams beside 5 MB prompts"
    return [
        bound("CPU per streamed chunk", "µs", chunk_us[VALET], 30, NGINX, chunk_us[NGINX]),
        bound(beside, "ms", gaps_ms[VALET], 20, NGINX, gaps_ms[NGINX]),
        ratio("the same beside nothing", "ms", alone_ms, NGINX),
    ]


def rows_of_tray(found: TrayFigures) -> list[Row]:
    """p99 beside the tray, over the p50 of the same run."""
    own = "own p50"
    signals = f"{found.signals} signals to the panel in {found.seconds:.0f} s"
    return [
        ratio(f"p99 beside the tray ({signals})", "µs", {VALET: found.p99_us, own: found.p50_us}, own, 3),
        ratio("the same while it redraws nothing", "µs", {VALET: found.still_p99_us, own: found.p50_us}, own),
    ]


def rows_of_beside(found: BesideFigures) -> list[Row]:
    """Ready models beside one that loads."""
    label = f"beside {found.loads} loads and ejects of 379 MB, p99"
    alone = "nothing"
    return [
        bound(f"ready model, {label}", "ms", found.engine_p99_ms, 50, alone, found.engine_alone_p99_ms),
        bound(f"C upstream, {label}", "ms", found.bare_p99_ms, 50, alone, found.bare_alone_p99_ms),
    ]


def rows_of_slow(found: Mapping[str, SlowFigures]) -> list[Row]:
    """Memory of streams to slow readers."""
    ours, nginx = found[VALET], found[NGINX]

    def row(figure: str, of: Callable[[SlowFigures], float], limit_bytes: float | None) -> Row:
        value, baseline = of(ours) / 1024, of(nginx) / 1024
        if limit_bytes is None:
            return Row(figure=figure, unit="KiB", value=value, baseline_name=NGINX, baseline=baseline)
        return bound(figure, "KiB", value, limit_bytes / 1024, NGINX, baseline)

    return [
        row("64 slow readers: memory of the proxy, a stream", lambda f: f.rss_bytes, _STREAM_SHARE_BYTES),
        row("ahead of the reader (kernel's buffers too), a stream", lambda f: f.ahead_bytes, None),
        row("more of it in the second half of the time", lambda f: f.late_bytes, _LATE_BYTES),
    ]


def printed(rows: list[Row]) -> str:
    """The table."""
    lines = [f"{'figure':58} {'value':>11}      {'baseline':>20} {'ratio':>8} {'target':>11}"]
    for row in rows:
        baseline = "" if row.baseline is None else f"{row.baseline_name} {row.baseline:,.1f}"
        quotient = "" if row.ratio is None else f"{row.ratio:.3g} ×"
        verdict = {None: "", True: "ok", False: "MISSED"}[row.is_met]
        lines.append(
            f"{row.figure:58} {row.value:11,.1f} {row.unit:4} {baseline:>20} {quotient:>8} "
            f"{row.target:>11} {verdict}".rstrip()
        )
    return "\n".join(lines)
