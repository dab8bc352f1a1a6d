"""Memory and CPU pressure: when a signal is a reason to pause, and when it is over.

Decides: for every signal at every look, whether it counts. Must not: sample, or know which hold follows.

A signal counts when its raw value is at its limit AND it is not only our own models' doing: what others
use has grown since our models were loaded, or what is free is below a reserve. With nothing of ours
loaded everything used is others'. It clears below its resume limit. Windows are measured in seconds of
the clock handed in, never in looks.
"""

from __future__ import annotations

import msgspec

from tray_valet.core.config import ThresholdSettings
from tray_valet.core.holds import HoldKind
from tray_valet.core.snapshot import SignalView

MIB = 2**20
# Growth of other programs below this is noise (a browser tab), not a wish for memory.
_MEMORY_GROWTH_MIN_BYTES = 64 * MIB
_MEMORY_GROWTH_MIN_PCT = 0.5
_CPU_GROWTH_MIN_PCT = 5.0
# Less free than this is pressure whoever uses the rest: the next allocation swaps or fails.
_RAM_RESERVE_MAX_BYTES = 1024 * MIB
_RAM_RESERVE_PCT = 3.0
_VRAM_RESERVE_BYTES = 256 * MIB


def is_overcommitted(size_bytes: int, ram_total_bytes: int, thresholds: ThresholdSettings) -> bool:
    """Whether one model, RAM and VRAM together, takes more than the pause limit's share of all RAM."""
    return ram_total_bytes > 0 and size_bytes > ram_total_bytes * thresholds.ram_pause_pct / 100


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One signal as measured. Per cents of the whole; `ours_pct` is what our models' processes take."""

    key: str  # ram | cpu | vram:<GPU's UUID>
    signal: HoldKind
    raw_pct: float
    ours_pct: float = 0.0
    total_bytes: int | None = None  # None for CPU
    gpu: str = ""

    @property
    def others_pct(self) -> float:
        return max(0.0, self.raw_pct - self.ours_pct)


class SignalState(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one signal between looks (monotonic seconds)."""

    others_at_load_pct: float | None = None  # None: nothing of ours is loaded
    breached_since_s: float | None = None
    is_counting: bool = False


PressureState = dict[str, SignalState]


def rebased(state: PressureState, readings: tuple[Reading, ...], *, has_models: bool) -> PressureState:
    """Note what others use now, because the set of our loaded models has just changed.

    A signal that counts keeps its old base: else a load in mid-pressure would hide the pressure.
    """
    result = dict(state)
    for reading in readings:
        old = result.get(reading.key, SignalState())
        if not (old.is_counting and has_models):
            base = reading.others_pct if has_models else None
            result[reading.key] = msgspec.structs.replace(old, others_at_load_pct=base)
    return result


def evaluate(
    state: PressureState, readings: tuple[Reading, ...], thresholds: ThresholdSettings, now_s: float
) -> tuple[PressureState, tuple[SignalView, ...]]:
    """Evaluate every signal; return the new memory and one view a signal (`counts` is the verdict)."""
    result: PressureState = {}
    views = []
    for reading in readings:
        result[reading.key], view = _evaluate_one(
            state.get(reading.key, SignalState()), reading, thresholds, now_s
        )
        views.append(view)
    return result, tuple(views)


def limits(signal: HoldKind, thresholds: ThresholdSettings) -> tuple[float, float, float]:
    """(pause at %, resume below %, sustained for s) of a signal."""
    if signal is HoldKind.RAM:
        return thresholds.ram_pause_pct, thresholds.ram_resume_pct, 0.0
    if signal is HoldKind.CPU:
        return thresholds.cpu_pause_pct, thresholds.cpu_resume_pct, float(thresholds.cpu_sustained_seconds)
    return thresholds.gpu_vram_pause_pct, thresholds.gpu_vram_resume_pct, 0.0


def reserve_bytes(reading: Reading) -> int | None:
    """The free memory that must stay, None for CPU."""
    if reading.total_bytes is None:
        return None
    if reading.signal is HoldKind.RAM:
        return min(_RAM_RESERVE_MAX_BYTES, int(reading.total_bytes * _RAM_RESERVE_PCT / 100))
    return min(_VRAM_RESERVE_BYTES, reading.total_bytes // 10)


def fits(*, needed_bytes: int, free_bytes: int, reserve: int) -> bool:
    """Whether models of that size can come back without eating the reserve."""
    return needed_bytes <= 0 or needed_bytes + reserve <= free_bytes


def _evaluate_one(
    old: SignalState, reading: Reading, thresholds: ThresholdSettings, now_s: float
) -> tuple[SignalState, SignalView]:
    pause_pct, resume_pct, sustained_s = limits(reading.signal, thresholds)
    is_breached = reading.raw_pct >= pause_pct
    since = (old.breached_since_s if old.breached_since_s is not None else now_s) if is_breached else None
    breached_for_s = now_s - since if since is not None else 0.0
    base = old.others_at_load_pct
    if base is not None and reading.total_bytes is None:
        # CPU use comes and goes, and a load is busy itself: the calmest moment since is the base.
        old = msgspec.structs.replace(old, others_at_load_pct=min(base, reading.others_pct))
    why_others = _why_others(reading, old)
    if old.is_counting:
        counts = reading.raw_pct >= resume_pct
    else:
        counts = is_breached and breached_for_s >= sustained_s and why_others is not None
    free = _free_bytes(reading)
    view = SignalView(
        signal=reading.signal.value,
        gpu=reading.gpu,
        raw_pct=reading.raw_pct,
        ours_pct=reading.ours_pct,
        others_pct=reading.others_pct,
        others_at_load_pct=old.others_at_load_pct,
        free_bytes=free,
        reserve_bytes=reserve_bytes(reading),
        pause_pct=pause_pct,
        resume_pct=resume_pct,
        is_breached=is_breached,
        breached_for_s=breached_for_s,
        counts=counts,
        text=_verdict(reading, pause_pct, resume_pct, sustained_s, breached_for_s, counts, why_others),
    )
    return msgspec.structs.replace(old, breached_since_s=since, is_counting=counts), view


def _free_bytes(reading: Reading) -> int | None:
    if reading.total_bytes is None:
        return None
    return int(reading.total_bytes * max(0.0, 100.0 - reading.raw_pct) / 100)


def _why_others(reading: Reading, state: SignalState) -> str | None:
    """Why the value is not only our models' doing, or None when it is."""
    if state.others_at_load_pct is None:
        return "nothing of ours is loaded"
    growth_pct = reading.others_pct - state.others_at_load_pct
    if reading.total_bytes is None:
        least_pct = _CPU_GROWTH_MIN_PCT
    else:
        least_pct = max(_MEMORY_GROWTH_MIN_PCT, 100 * _MEMORY_GROWTH_MIN_BYTES / reading.total_bytes)
    if growth_pct >= least_pct:
        return f"other programs grew by {growth_pct:.1f}% since the models were loaded"
    free, reserve = _free_bytes(reading), reserve_bytes(reading)
    if free is not None and reserve is not None and free < reserve:
        return f"only {free // MIB} MB are free"
    return None


def _verdict(
    reading: Reading,
    pause_pct: float,
    resume_pct: float,
    sustained_s: float,
    breached_for_s: float,
    counts: bool,
    why_others: str | None,
) -> str:
    if counts and reading.raw_pct < pause_pct:
        return f"still counts: it clears below {resume_pct:.1f}%"
    if counts:
        return f"counts: at its limit, and {why_others or 'it has not cleared yet'}"
    if reading.raw_pct < pause_pct:
        return f"below its limit of {pause_pct:.1f}%"
    if why_others is None:
        return "at its limit, but other programs use no more than when the models were loaded"
    return f"at its limit for {breached_for_s:.0f} s; it counts after {sustained_s:.0f} s"
