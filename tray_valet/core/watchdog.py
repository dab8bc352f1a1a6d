"""The watchdog's states: one total table of states × inputs, and the level that an input is.

Decides: the next state. Must not: act, or remember anything besides the state.

The inputs are levels, computed afresh each time from everything known (`level`), so that a lost or
repeated event changes nothing. The table is the design: the README's diagram is generated from it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class State(StrEnum):
    """What the user sees. The names are those of the API."""

    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    PROVIDER_DOWN = "provider_down"


class Level(StrEnum):
    """All that matters of the moment, folded into one value."""

    HELD_RESIDENT = "held, models in memory"
    HELD_CLEAR = "held, memory clear"
    HELD_DOWN = "held, no provider answers"
    WAITING_RESIDENT = "waiting, models in memory"
    WAITING_CLEAR = "waiting, memory clear"
    FREE_MISSING = "free, models to bring back"
    FREE_COMPLETE = "free, all is back"
    FREE_DOWN = "free, no provider answers"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a level is made of.

    is_held: a hold is in effect. is_waiting: none is, but the wait after the last one is not over, or
    what is to be brought back does not fit yet. has_residents: something that must go is, or may still
    be, in memory (unknown counts as yes). has_missing: the journal names models that are not back.
    is_down: no local provider that has anything to do answers, after repeated tries.
    """

    is_held: bool = False
    is_waiting: bool = False
    has_residents: bool = False
    has_missing: bool = False
    is_down: bool = False


def level(facts: Facts) -> Level:
    """Fold the facts into the one input of the table."""
    if facts.is_held:
        if facts.is_down:
            return Level.HELD_DOWN
        return Level.HELD_RESIDENT if facts.has_residents else Level.HELD_CLEAR
    if facts.is_waiting:
        return Level.WAITING_RESIDENT if facts.has_residents else Level.WAITING_CLEAR
    if facts.is_down:
        return Level.FREE_DOWN
    return Level.FREE_MISSING if facts.has_missing else Level.FREE_COMPLETE


_R, _PG, _PD, _RS, _DN = State.RUNNING, State.PAUSING, State.PAUSED, State.RESUMING, State.PROVIDER_DOWN
_ORDER = (_R, _PG, _PD, _RS, _DN)
_COLUMNS: dict[Level, tuple[State, State, State, State, State]] = {
    # from:                running  pausing  paused  resuming  provider_down
    Level.HELD_RESIDENT: (_PG, _PG, _PG, _PG, _PG),  # also a reload in mid-pause: out again
    Level.HELD_CLEAR: (_PD, _PD, _PD, _PD, _PD),
    Level.HELD_DOWN: (_PD, _PD, _PD, _PD, _PD),  # a provider that is gone holds no memory
    Level.WAITING_RESIDENT: (_R, _PG, _PD, _RS, _R),  # what was begun is finished, nothing is begun
    Level.WAITING_CLEAR: (_R, _PD, _PD, _RS, _PD),
    Level.FREE_MISSING: (_RS, _RS, _RS, _RS, _RS),
    Level.FREE_COMPLETE: (_R, _R, _R, _R, _R),
    Level.FREE_DOWN: (_DN, _DN, _DN, _DN, _DN),  # the journal stays: it goes on when one answers again
}
TRANSITIONS: dict[tuple[State, Level], State] = {
    (state, lvl): column[i] for lvl, column in _COLUMNS.items() for i, state in enumerate(_ORDER)
}


def next_state(state: State, lvl: Level) -> State:
    """Look the next state up; every pair is in the table."""
    return TRANSITIONS[state, lvl]


def mermaid_diagram() -> str:
    """The table as a Mermaid state diagram, for the README."""
    lines = ["stateDiagram-v2", "    [*] --> running"]
    for state in _ORDER:
        targets: dict[State, list[str]] = {}
        for lvl in Level:
            target = TRANSITIONS[state, lvl]
            if target is not state:
                targets.setdefault(target, []).append(lvl.value)
        lines += [f"    {state} --> {target}: {' / '.join(lvls)}" for target, lvls in targets.items()]
    return "\n".join(lines)
