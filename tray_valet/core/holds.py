"""Holds: the active reasons to stay paused, and the user's overrides of them.

Decides: which holds are in effect, from when on the models may come back, what an override covers.
Must not: see games or measure memory (those who do place and end holds), or read a clock.

Levels, not edges: whoever sees a reason places it, and ends it when it is gone. Placing twice changes
nothing. An override is bound to a hold's id and goes with it, so "keep running" lasts until that game
has ended, not until the next tick.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tray_valet.core.errors import NotFound
from tray_valet.core.processes import ProcessIdentity


class HoldKind(StrEnum):
    """What a hold is about; the names are those of the API."""

    GAME = "game"
    RAM = "ram"
    CPU = "cpu"
    VRAM = "vram"
    USER = "user"
    POWER = "power"


HOST_PRESSURE_KINDS = frozenset({HoldKind.RAM, HoldKind.CPU})


class GameCause(msgspec.Struct, frozen=True, kw_only=True, tag="game"):
    """A game runs. `place` is what the log names: `steamapps/common/Hades`."""

    name: str
    place: str
    store: str = ""
    appid: str = ""
    rule: str = ""


class PressureCause(msgspec.Struct, frozen=True, kw_only=True, tag="pressure"):
    """A signal is at its limit and it is not our own models' doing. Per cents of the whole."""

    signal: HoldKind
    value_pct: float
    limit_pct: float
    resume_pct: float
    gpu: str = ""  # the GPU's name, for VRAM on machines with several
    sustained_s: float = 0.0


class UserCause(msgspec.Struct, frozen=True, kw_only=True, tag="user"):
    """The user said so."""

    reason: str = ""


class ProgramCause(msgspec.Struct, frozen=True, kw_only=True, tag="program"):
    """Another program asked the models to step aside."""

    owner: str
    reason: str = ""


class PowerCause(msgspec.Struct, frozen=True, kw_only=True, tag="power"):
    """The machine runs on battery, or is about to sleep."""

    what: str


Cause = GameCause | PressureCause | UserCause | ProgramCause | PowerCause


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """One reason to stay paused. `since` is Unix seconds; the other times are monotonic seconds."""

    id: str
    kind: HoldKind
    owner: str  # "user", "valet", or the program's name
    cause: Cause
    since: float
    wait_s: float = 0.0  # how long the models stay away after it has ended
    expires_at_s: float | None = None  # it ends by itself then; None = it does not
    process: ProcessIdentity | None = None  # it ends with this process; None = with none
    needs_manual_resume: bool = False  # it never ends by itself into a resume


class Holds(msgspec.Struct, frozen=True, kw_only=True):
    """All holds, those that are overridden, and the end of the longest wait so far (monotonic seconds)."""

    active: tuple[Hold, ...] = ()
    overridden: frozenset[str] = frozenset()
    free_at_s: float = 0.0
    last_ended: Hold | None = None  # whose wait is running, for the sentence that says so


def place(holds: Holds, hold: Hold) -> Holds:
    """Add a hold, or take over the newer cause of one that is there; `since` stays the first's."""
    for i, old in enumerate(holds.active):
        if old.id == hold.id:
            kept = msgspec.structs.replace(hold, since=old.since)
            return msgspec.structs.replace(holds, active=(*holds.active[:i], kept, *holds.active[i + 1 :]))
    return msgspec.structs.replace(holds, active=(*holds.active, hold))


def end(holds: Holds, hold_id: str, now_s: float) -> Holds:
    """End a hold. If it was in effect its wait starts now; waits do not add up, the longest counts.

    Raises NotFound for an id that is not active.
    """
    hold = find(holds, hold_id)
    was_in_effect = hold_id not in holds.overridden
    free_at_s, last_ended = holds.free_at_s, holds.last_ended
    if was_in_effect and (now_s + hold.wait_s >= free_at_s or free_at_s <= now_s):
        free_at_s, last_ended = now_s + hold.wait_s, hold
    return Holds(
        active=tuple(h for h in holds.active if h.id != hold_id),
        overridden=holds.overridden - {hold_id},
        free_at_s=free_at_s,
        last_ended=last_ended,
    )


def find(holds: Holds, hold_id: str) -> Hold:
    """Return the active hold of that id. Raises NotFound."""
    for hold in holds.active:
        if hold.id == hold_id:
            return hold
    raise NotFound(f"There is no hold {hold_id!r}.", param="id")


def in_effect(holds: Holds) -> tuple[Hold, ...]:
    """The holds that keep the models away: active and not overridden."""
    if not holds.active:
        return ()  # asked for every request
    return tuple(h for h in holds.active if h.id not in holds.overridden)


def expired(holds: Holds, now_s: float) -> tuple[Hold, ...]:
    """The holds whose time is up."""
    return tuple(h for h in holds.active if h.expires_at_s is not None and h.expires_at_s <= now_s)


def override(holds: Holds, hold_ids: frozenset[str]) -> Holds:
    """Keep running in spite of these holds, until each of them has ended. Unknown ids are ignored."""
    known = {h.id for h in holds.active} & hold_ids
    return msgspec.structs.replace(holds, overridden=holds.overridden | known)


def resume_by_user(holds: Holds) -> Holds:
    """What the user's Resume means: own pauses end, everything else is overridden, waits are over."""
    staying = tuple(h for h in holds.active if not is_users_own(h))
    return Holds(
        active=staying,
        overridden=frozenset(h.id for h in staying),
        free_at_s=0.0,
        last_ended=None,
    )


def is_users_own(hold: Hold) -> bool:
    """Whether the user placed it by hand (and not a program)."""
    return isinstance(hold.cause, UserCause)


def has_same_end(one: Hold, other: Hold) -> bool:
    """Whether both end by themselves at the same time and with the same process, or neither does."""
    return (one.expires_at_s, one.process) == (other.expires_at_s, other.process)


def ends_in_s(holds: tuple[Hold, ...], now_s: float) -> float | None:
    """Seconds until the time of the last of these holds is up; None where one of them has no such time."""
    times = [h.expires_at_s for h in holds]
    known = [time for time in times if time is not None]
    return max(0.0, max(known) - now_s) if known and len(known) == len(times) else None


def wait_left_s(holds: Holds, now_s: float) -> float:
    """Seconds until the models may come back; 0 when they may now or while a hold is in effect."""
    return 0.0 if in_effect(holds) else max(0.0, holds.free_at_s - now_s)
