"""The ledger: for each game, how often and how fast the models stepped aside for it, and came back.

Decides: what is remembered of a game, how little of it (a bounded number of games, and of durations for
each), and what counts as slow. Must not: follow the facts (`ledger_fold.py` does), store anything, or
remember more of a person than the games' names: no models, no clients, no programs.
"""

from __future__ import annotations

import statistics
from enum import StrEnum
from typing import Annotated

import msgspec

KEPT_GAMES = 200
KEPT_DURATIONS = 50  # of each kind for each game: the median is that of the last 50
MAX_BYTES = 256 * 1024  # as JSON
SLOW_S = 1.0  # from the game seen to the memory confirmed free
_NAME_LENGTH = 100
_KEY_LENGTH = 200

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class SlowPart(StrEnum):
    """What took the longest of a stepping aside."""

    ANSWER = "answer"  # an answer was still being written
    RUNNER = "runner"  # a model's process did not let go and was ended
    MEMORY = "memory"  # the model was gone, its memory not yet free
    PASSES = "passes"  # not everything could be got out at the first try
    UNLOAD = "unload"  # nothing of that: seeing it, unloading and measuring took that long


class Slowness(msgspec.Struct, frozen=True, kw_only=True):
    """The slowest part of one stepping aside, and its seconds."""

    part: SlowPart
    took_s: Seconds


class SteppedAside(msgspec.Struct, frozen=True, kw_only=True):
    """One stepping aside: `took_s` from the game seen to the memory confirmed free; `at` Unix seconds."""

    at: float
    took_s: Seconds
    freed_bytes: Count
    slow: Slowness | None = None  # None: it was not slow


class GameRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one game. Durations are seconds, the newest last; `at`s are Unix seconds."""

    key: str
    name: str
    last_at: float
    times: Count = 0  # the models stepped aside for it
    took_s: tuple[Seconds, ...] = ()
    worst: SteppedAside | None = None
    last: SteppedAside | None = None
    freed_bytes: Count = 0
    most_freed_bytes: Count = 0
    slow: dict[SlowPart, Count] = {}  # how often which part made it slow
    played: Count = 0  # times it ran and ended with the models out of its way
    played_s: Seconds = 0.0
    reloads: Count = 0  # models that programs loaded past the valet meanwhile
    restores: Count = 0
    restored_s: tuple[Seconds, ...] = ()
    worst_restore_s: Seconds = 0.0
    restore_failures: Count = 0  # models that could not be brought back

    @property
    def median_s(self) -> float | None:
        """Half of the last steppings aside were faster; None before the first."""
        return statistics.median(self.took_s) if self.took_s else None

    @property
    def median_restore_s(self) -> float | None:
        """Half of the last restores were faster; None before the first."""
        return statistics.median(self.restored_s) if self.restored_s else None

    @property
    def slow_times(self) -> int:
        """How often it took longer than `SLOW_S`."""
        return sum(self.slow.values())


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Every game that is remembered, by its key; the one that was touched last stands last."""

    games: dict[str, GameRecord] = {}


def key_of(store: str, appid: str, name: str) -> str:
    """What a game is known by here: `steam:1145360`, as in /games; never a folder, which names a person."""
    return f"{store}:{appid or name}"[:_KEY_LENGTH]


def opened(ledger: Ledger, key: str, name: str, at: float) -> Ledger:
    """The ledger with a game in it, the newest of all; the oldest goes when there are too many."""
    name = name[:_NAME_LENGTH]
    old = ledger.games.get(key) or GameRecord(key=key, name=name, last_at=at)
    games = {k: record for k, record in ledger.games.items() if k != key}
    games[key] = msgspec.structs.replace(old, name=name or old.name, last_at=at)
    return Ledger(games=dict(list(games.items())[-KEPT_GAMES:]))


def stepped_aside(ledger: Ledger, key: str, step: SteppedAside) -> Ledger:
    """Add one stepping aside for a game that is in the ledger."""
    old = ledger.games[key]
    slow = old.slow
    if step.slow is not None:
        slow = {**slow, step.slow.part: slow.get(step.slow.part, 0) + 1}
    return _with(
        ledger,
        msgspec.structs.replace(
            old,
            times=old.times + 1,
            took_s=_kept(old.took_s, step.took_s),
            worst=step if old.worst is None or step.took_s > old.worst.took_s else old.worst,
            last=step,
            last_at=step.at,
            freed_bytes=old.freed_bytes + step.freed_bytes,
            most_freed_bytes=max(old.most_freed_bytes, step.freed_bytes),
            slow=slow,
        ),
    )


def freed_more(ledger: Ledger, key: str, n_bytes: int) -> Ledger:
    """Add what a provider that answered late gave back in the same stepping aside."""
    old = ledger.games[key]
    if old.last is None:
        return ledger
    last = msgspec.structs.replace(old.last, freed_bytes=old.last.freed_bytes + n_bytes)
    worst = last if old.worst == old.last else old.worst
    most = max(old.most_freed_bytes, last.freed_bytes)
    return _with(
        ledger,
        msgspec.structs.replace(
            old, last=last, worst=worst, freed_bytes=old.freed_bytes + n_bytes, most_freed_bytes=most
        ),
    )


def played(ledger: Ledger, key: str, ran_s: float, at: float) -> Ledger:
    """Add that a game ran so long."""
    old = ledger.games[key]
    return _with(
        ledger,
        msgspec.structs.replace(
            old, played=old.played + 1, played_s=round(old.played_s + max(0.0, ran_s), 1), last_at=at
        ),
    )


def reloaded(ledger: Ledger, key: str) -> Ledger:
    """Add that a program loaded a model past the valet while the game ran."""
    old = ledger.games[key]
    return _with(ledger, msgspec.structs.replace(old, reloads=old.reloads + 1))


def restored(ledger: Ledger, key: str, took_s: float) -> Ledger:
    """Add that the models were brought back after a game."""
    old = ledger.games[key]
    return _with(
        ledger,
        msgspec.structs.replace(
            old,
            restores=old.restores + 1,
            restored_s=_kept(old.restored_s, took_s),
            worst_restore_s=max(old.worst_restore_s, _rounded(took_s)),
        ),
    )


def restore_failed(ledger: Ledger, key: str) -> Ledger:
    """Add that a model could not be brought back after a game."""
    old = ledger.games[key]
    return _with(ledger, msgspec.structs.replace(old, restore_failures=old.restore_failures + 1))


def named(ledger: Ledger, game: str) -> tuple[str, ...]:
    """The keys of the games that `game` means: its key, else every game of that name, however written."""
    if game in ledger.games:
        return (game,)
    wanted = game.casefold()
    return tuple(key for key, record in ledger.games.items() if record.name.casefold() == wanted)


def without(ledger: Ledger, keys: tuple[str, ...]) -> Ledger:
    """The ledger without these games."""
    return Ledger(games={key: record for key, record in ledger.games.items() if key not in keys})


def encoded(ledger: Ledger) -> bytes:
    """The ledger as JSON of at most `MAX_BYTES`; the oldest games are left out where there are too many."""
    games = list(ledger.games.items())
    while True:
        raw = msgspec.json.encode(Ledger(games=dict(games)))
        if len(raw) <= MAX_BYTES:
            return raw
        games = games[max(1, len(games) // 10) :]


def decoded(raw: bytes) -> Ledger:
    """What `encoded` made. Raises msgspec.MsgspecError for anything else."""
    found = msgspec.json.decode(raw, type=Ledger)
    for key, record in found.games.items():
        if key != record.key or max(len(record.took_s), len(record.restored_s)) > KEPT_DURATIONS:
            raise msgspec.ValidationError(f"The record of {key!r} is not one of ours")
    return Ledger(games=dict(list(found.games.items())[-KEPT_GAMES:]))


def _with(ledger: Ledger, record: GameRecord) -> Ledger:
    return Ledger(games={**ledger.games, record.key: record})


def _kept(durations: tuple[float, ...], took_s: float) -> tuple[float, ...]:
    return (*durations, _rounded(took_s))[-KEPT_DURATIONS:]


def _rounded(seconds: float) -> float:
    return round(max(0.0, seconds), 3)
