"""The ledger folded from the facts: which of them belong to which game.

Decides: what counts as one stepping aside (the first confirmed one of a pause; what programs load again
meanwhile is no other), for which games it was, and which part of it was slow. Must not: store, read a clock.

A game is one that the models step aside for: it has a hold. A hold that the user overrides by resuming
counts no more. A hold that is placed under a game's own name (the answer “Yes” to a question) is its too.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tray_valet.core import events as ev
from tray_valet.core import ledger as rules
from tray_valet.core.holds import GameCause, Hold, ProgramCause
from tray_valet.core.ledger import Ledger, Slowness, SlowPart, SteppedAside
from tray_valet.core.watchdog import State

_Change = Callable[[Ledger, str], Ledger]
_NO_PART_UNDER_S = 0.25  # shorter than this, a part explains nothing


class Playing(msgspec.Struct, frozen=True, kw_only=True):
    """A game that runs. `held_since_s`: monotonic seconds of its hold, None = the models stay beside it.

    `folder` is what the facts know it by; `key` its record in the ledger, "" while it has had no hold.
    """

    name: str
    folder: str
    store: str = ""
    key: str = ""
    hold_id: str | None = None
    held_since_s: float | None = None


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that explains time: at `at_s` (monotonic), some `took_s` of it were over already."""

    part: SlowPart
    at_s: float
    took_s: float


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger, and what is under way."""

    ledger: Ledger = Ledger()
    playing: tuple[Playing, ...] = ()
    delays: tuple[Delay, ...] = ()
    is_set_aside: bool = False  # this pause's first stepping aside is confirmed
    for_games: tuple[str, ...] = ()  # keys of the games it was for


def folded(book: Book, fact: ev.Fact, now_s: float, wall_s: float) -> Book:
    """The book with a fact taken in; most facts change nothing and give the same book back."""
    match fact:
        case ev.GameStarted(name=name, key=folder, store=store):
            playing = tuple(game for game in book.playing if game.folder != folder)
            return _changed(book, playing=(*playing, Playing(name=name, folder=folder, store=store)))
        case ev.GameEnded(key=folder, ran_s=ran_s):
            return _ended(book, folder, ran_s, wall_s)
        case ev.HoldPlaced(hold=hold):
            return _held(book, hold, now_s, wall_s)
        case ev.HoldEnded(hold=hold):
            return _released(book, hold.id)
        case ev.StateChanged(after=after):
            return _moved(book, after)
        case ev.ModelsSetAside(models=models) if models:
            return _set_aside(book, fact, now_s, wall_s)
        case ev.ModelReloadedDuringPause():
            return _each(book, _held_keys(book), rules.reloaded)
        case ev.ModelsBroughtBack(models=models, took_s=took_s) if models:
            return _each(book, book.for_games, lambda ledger, key: rules.restored(ledger, key, took_s))
        case ev.RestoreFailed(next_try_s=None):
            return _each(book, book.for_games, rules.restore_failed)
    delay = _delay_of(fact, now_s)
    if delay is None or book.is_set_aside or not _held_keys(book):
        return book
    return _changed(book, delays=(*book.delays, delay)[-50:])


def forgotten(book: Book, keys: tuple[str, ...] | None) -> Book:
    """The book without these games (None: without any), also where they run just now."""
    gone = tuple(book.ledger.games) if keys is None else keys
    return _changed(
        book,
        ledger=rules.without(book.ledger, gone),
        playing=tuple(game for game in book.playing if keys is not None and game.key not in gone),
        for_games=tuple(key for key in book.for_games if keys is not None and key not in gone),
    )


# -- games and their holds -------------------------------------------------------------------------------


def _held(book: Book, hold: Hold, now_s: float, wall_s: float) -> Book:
    game = _game_of(book, hold)
    if game is None or game.held_since_s is not None:
        return book
    appid = hold.cause.appid if isinstance(hold.cause, GameCause) else ""
    key = game.key or rules.key_of(game.store, appid, game.name)
    held = msgspec.structs.replace(game, key=key, hold_id=hold.id, held_since_s=now_s)
    playing = tuple(held if each is game else each for each in book.playing)
    return _changed(book, playing=playing, ledger=rules.opened(book.ledger, key, game.name, wall_s))


def _game_of(book: Book, hold: Hold) -> Playing | None:
    for game in reversed(book.playing):
        if isinstance(hold.cause, GameCause) and hold.id == f"game:{game.folder}":
            return game
        if isinstance(hold.cause, ProgramCause) and hold.owner == game.name:
            return game
    return None


def _released(book: Book, hold_id: str) -> Book:
    if not any(game.hold_id == hold_id for game in book.playing):
        return book
    return _changed(book, playing=tuple(_let_go(game, game.hold_id == hold_id) for game in book.playing))


def _let_go(game: Playing, is_it: bool) -> Playing:
    return msgspec.structs.replace(game, hold_id=None, held_since_s=None) if is_it else game


def _ended(book: Book, folder: str, ran_s: float, wall_s: float) -> Book:
    game = next((game for game in book.playing if game.folder == folder), None)
    if game is None:
        return book
    book = _changed(book, playing=tuple(each for each in book.playing if each is not game))
    return _each(book, (game.key,), lambda ledger, key: rules.played(ledger, key, ran_s, wall_s))


def _held_keys(book: Book) -> tuple[str, ...]:
    return tuple(game.key for game in book.playing if game.held_since_s is not None)


# -- pauses ----------------------------------------------------------------------------------------------


def _moved(book: Book, after: State) -> Book:
    if after in (State.PAUSING, State.PAUSED):
        return book
    book = _changed(book, delays=(), is_set_aside=False)
    if after is State.PROVIDER_DOWN:
        return book
    # The models come back although the game runs: the user chose that, for as long as it runs.
    book = _changed(
        book, playing=tuple(_let_go(game, game.held_since_s is not None) for game in book.playing)
    )
    return _changed(book, for_games=()) if after is State.RUNNING else book


def _set_aside(book: Book, fact: ev.ModelsSetAside, now_s: float, wall_s: float) -> Book:
    if fact.is_again:
        return book
    if book.is_set_aside:  # a provider that answered late
        freed = max(0, fact.freed_bytes)
        return _each(book, _held_keys(book), lambda ledger, key: rules.freed_more(ledger, key, freed))
    keys = _held_keys(book)
    if not keys:
        return _changed(book, is_set_aside=True)  # for another reason; a game that follows finds it done
    ledger = book.ledger
    for game in book.playing:
        if game.held_since_s is None or game.key not in ledger.games:
            continue
        took_s = max(0.0, now_s - game.held_since_s)
        step = SteppedAside(
            at=round(wall_s, 1),
            took_s=round(took_s, 3),
            freed_bytes=max(0, fact.freed_bytes),
            slow=_slowness(book.delays, game.held_since_s, now_s) if took_s >= rules.SLOW_S else None,
        )
        ledger = rules.stepped_aside(ledger, game.key, step)
    for_games = tuple(dict.fromkeys((*book.for_games, *keys)))
    return _changed(book, ledger=ledger, is_set_aside=True, for_games=for_games, delays=())


def _delay_of(fact: ev.Fact, now_s: float) -> Delay | None:
    match fact:
        case ev.AnswersEnded(waited_s=waited_s) | ev.AnswersAwaited(waited_s=waited_s):
            return Delay(part=SlowPart.ANSWER, at_s=now_s, took_s=waited_s)
        case ev.RunnerKilled(waited_s=waited_s):
            return Delay(part=SlowPart.RUNNER, at_s=now_s, took_s=waited_s)
        case ev.MemoryStillHeld():
            return Delay(part=SlowPart.MEMORY, at_s=now_s, took_s=0.0)
        case ev.PauseUnfinished():
            return Delay(part=SlowPart.PASSES, at_s=now_s, took_s=0.0)
    return None


def _slowness(delays: tuple[Delay, ...], since_s: float, now_s: float) -> Slowness:
    """The longest part. Waits that are told when they are over count as long as they say; memory and further
    passes count from the end of what came before them until all was done."""
    longest = Slowness(part=SlowPart.UNLOAD, took_s=round(max(0.0, now_s - since_s), 3))
    found: Slowness | None = None
    before_s = since_s
    for delay in delays:
        is_told_at_end = delay.part in (SlowPart.ANSWER, SlowPart.RUNNER)
        took_s = min(delay.took_s, delay.at_s - since_s) if is_told_at_end else now_s - before_s
        if took_s >= _NO_PART_UNDER_S and (found is None or took_s > found.took_s):
            found = Slowness(part=delay.part, took_s=round(took_s, 3))
        before_s = max(before_s, delay.at_s)
    return found or longest


def _each(book: Book, keys: tuple[str, ...], change: _Change) -> Book:
    ledger = book.ledger
    for key in keys:
        if key in ledger.games:
            ledger = change(ledger, key)
    return book if ledger is book.ledger else _changed(book, ledger=ledger)


def _changed(book: Book, **changes: object) -> Book:
    return msgspec.structs.replace(book, **changes)
