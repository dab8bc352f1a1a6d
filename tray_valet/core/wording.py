"""Words: how sizes, durations and causes are said to people, and the log's wording of a reason.

Decides: the wording. Must not: decide what is the case, or know the facts (`fact_sentences.py` words those).
"""

from __future__ import annotations

import math

from tray_valet.core.holds import (
    Cause,
    GameCause,
    Hold,
    HoldKind,
    PowerCause,
    PressureCause,
    ProgramCause,
    is_users_own,
)

_GIB = 2**30
_NBSP = "\u00a0"
_UNKNOWN_RETRY_S = 5  # where nothing says when the models are back
_LONGEST_RETRY_S = 300  # the user may end it earlier
_DAY_S = 86_400
_SIGNAL_LOG_NAMES = {HoldKind.RAM: "RAM", HoldKind.CPU: "CPU", HoldKind.VRAM: "GPU VRAM"}


def size(n_bytes: int) -> str:
    """`17.3 GB` (2³⁰ bytes), `84 MB` below 0.1 GB."""
    gib = n_bytes / _GIB
    return f"{gib:.1f}{_NBSP}GB" if gib >= 0.1 else f"{n_bytes // 2**20}{_NBSP}MB"


def duration(seconds: float) -> str:
    """`under 0.1 s`, `0.6 s`, `2 s`, `18 s`, `3 min`, `2 h`."""
    if 0 < seconds < 0.05:
        return f"under 0.1{_NBSP}s"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + f"{_NBSP}s"
    if seconds < 119.5:
        return f"{seconds:.0f}{_NBSP}s"
    if seconds < 119.5 * 60:
        return f"{seconds / 60:.0f}{_NBSP}min"
    return f"{seconds / 3600:.0f}{_NBSP}h"


def count(n: int, noun: str) -> str:
    """`1 model`, `3 models`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: tuple[str, ...]) -> str:
    """`a`, `a and b`, `a, b and 2 more`."""
    if len(names) <= 2:
        return " and ".join(names)
    if len(names) == 3:
        return f"{names[0]}, {names[1]} and {names[2]}"
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"


def technical_reason(cause: Cause) -> str:
    """The log's and the API's wording of a cause, as the first of its kind had it."""
    if isinstance(cause, GameCause):
        return f"game detected — {cause.place or cause.name}"
    if isinstance(cause, PressureCause):
        name = _SIGNAL_LOG_NAMES[cause.signal]
        tail = f" for {cause.sustained_s:.0f} s" if cause.sustained_s else ""
        return f"{name} {cause.value_pct:.1f}% >= {cause.limit_pct:.1f}% threshold{tail}"
    if isinstance(cause, ProgramCause):
        return f"hold by {cause.owner}" + (f" — {cause.reason}" if cause.reason else "")
    if isinstance(cause, PowerCause):
        return f"power — {cause.what}"
    return "manual pause" + (f" — {cause.reason}" if cause.reason else "")


def who(hold: Hold) -> str:
    """What the models step aside for, as it stands behind “Paused for”."""
    if isinstance(hold.cause, GameCause):
        return hold.cause.name
    return hold.cause.owner if isinstance(hold.cause, ProgramCause) else ""


def title_of_pause(holds: tuple[Hold, ...]) -> str:
    """`Paused for Hades`, `Paused by you`, `Paused: RAM is full` …: the strongest reason first."""
    beneficiaries = tuple(dict.fromkeys(w for w in map(who, holds) if w))
    if any(h.kind is HoldKind.GAME for h in holds) and beneficiaries:
        return f"Paused for {listed(beneficiaries)}"
    kinds = {h.kind for h in holds}
    if HoldKind.USER in kinds:
        return f"Paused for {listed(beneficiaries)}" if beneficiaries else "Paused by you"
    for kind, words in (
        (HoldKind.RAM, "Paused: RAM is full"),
        (HoldKind.VRAM, "Paused: VRAM is needed"),
        (HoldKind.CPU, "Paused: the CPU is busy"),
        (HoldKind.POWER, "Paused on battery"),
    ):
        if kind in kinds:
            return words
    return "Paused"


_IS_OVER = {
    HoldKind.RAM: "RAM was full. ",
    HoldKind.VRAM: "VRAM was needed. ",
    HoldKind.CPU: "The CPU was busy. ",
    HoldKind.POWER: "The machine ran on battery. ",
}


def retry_after_s(holds: tuple[Hold, ...], wait_left_s: float, ends_in_s: float | None = None) -> int:
    """Whole seconds after which a program that was refused should ask again, 1 to 86,400.

    Exact while the time until the models come back is counted down; the arguments are `refusal`'s.
    """
    if not holds:
        return min(_DAY_S, max(1, math.ceil(wait_left_s))) if wait_left_s > 0 else _UNKNOWN_RETRY_S
    grace_s = max(h.wait_s for h in holds)
    if ends_in_s is None:
        return min(_LONGEST_RETRY_S, max(_UNKNOWN_RETRY_S, math.ceil(grace_s)))
    return min(_LONGEST_RETRY_S, max(1, math.ceil(ends_in_s + grace_s)))


def refusal(
    holds: tuple[Hold, ...],
    wait_left_s: float,
    retry_after_s: float,
    ends_in_s: float | None = None,
    ended: Hold | None = None,
) -> str:
    """What a program is told during a pause: the cause, what happens next, when to try again.

    `ends_in_s`: when the holds end by themselves; None = they don't say. `ended`: the last hold, once there
    is none any more.
    """
    again = f"Try again in {max(1, math.ceil(retry_after_s))}{_NBSP}s."
    if not holds:
        is_counted = wait_left_s > 0  # in whole seconds, as in `again`
        when = f"in {duration(math.ceil(wait_left_s))}" if is_counted else "when there is room for them again"
        name = who(ended) if ended is not None else ""
        why = f"{name} has ended. " if name else _IS_OVER.get(ended.kind, "") if ended is not None else ""
        return f"{why}The models come back {when}. {again}"
    title = title_of_pause(holds).replace("Paused by you", "Paused by the user")
    if any(is_users_own(h) or h.needs_manual_resume for h in holds):
        latest = f", in {duration(ends_in_s)} at the latest" if ends_in_s is not None else ""
        return f"{title}. Models come back when the user resumes{latest}. {again}"
    if any(h.kind is HoldKind.GAME for h in holds):
        return f"{title}. Models come back after the game. {again}"
    if any(isinstance(h.cause, ProgramCause) for h in holds):
        return f"{title}. Models come back when it is done. {again}"
    return f"{title}. Models come back when there is room again. {again}"


def pressure_line(cause: PressureCause) -> str:
    """Why pressure pauses, with the numbers."""
    if cause.signal is HoldKind.RAM:
        return (
            f"It is {cause.value_pct:.1f}% full and other programs want more; "
            f"the limit is {cause.limit_pct:.0f}%."
        )
    if cause.signal is HoldKind.CPU:
        return f"Above {cause.limit_pct:.0f}% for {cause.sustained_s:.0f}{_NBSP}s."
    return f"{cause.value_pct:.1f}% is in use; the limit is {cause.limit_pct:.0f}%."


def reason_of(model: str, message: str) -> str:
    """A loader's message without the words that every sentence about it begins with."""
    return message.removeprefix(f"{model} could not be loaded: ")
