"""The words of notices, and whether what they say is still so.

Decides: from facts of one subject and the picture now, the notice, or None when it is no longer true.
Must not: decide when it is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tray_valet.core import events as ev
from tray_valet.core.events_disk import DownloadFailed, DownloadFinished
from tray_valet.core.events_providers import ProviderLost
from tray_valet.core.fact_sentences import sentence
from tray_valet.core.holds import GameCause, HoldKind
from tray_valet.core.models import ConditionType
from tray_valet.core.notices import Choice, ChoiceKind, Notice, Subject
from tray_valet.core.reload_fights import called, remedy
from tray_valet.core.snapshot import HoldView, ProviderView, Snapshot
from tray_valet.core.watchdog import State
from tray_valet.core.wording import count, duration, listed, reason_of, size

_F = TypeVar("_F", bound=ev.Fact)
_MOVED_OUT = (State.PAUSING, State.PAUSED)
_KEEP_RUNNING = Choice(ChoiceKind.KEEP_RUNNING, "Keep running")
_TRY_AGAIN = Choice(ChoiceKind.TRY_AGAIN, "Try again")
_YES = Choice(ChoiceKind.STEP_ASIDE, "Yes")
_NOT_THIS_TIME = Choice(ChoiceKind.NOT_THIS_TIME, "Not this time")


def worded(subject: Subject, facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    """The notice that these facts come to, or None when they are no longer so (or never were news)."""
    return _WORDS[subject](facts, now) if facts else None


def _of(kind: type[_F], facts: tuple[ev.Fact, ...]) -> list[_F]:
    return [fact for fact in facts if isinstance(fact, kind)]


def _loaded(now: Snapshot) -> frozenset[str]:
    return frozenset(model.name for provider in now.providers for model in provider.loaded)


def _in_effect(now: Snapshot) -> tuple[HoldView, ...]:
    return tuple(view for view in now.holds if not view.is_overridden)


# -- the models' comings and goings ------------------------------------------------------------------


def _models(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    if back := _of(ev.ModelsBroughtBack, facts):
        return _brought_back(facts, back[-1], now)
    if aside := _of(ev.ModelsSetAside, facts):
        return _set_aside(facts, aside, now)
    return _interrupted(facts, _of(ev.ValetStarted, facts)[-1], now)


def _set_aside(facts: tuple[ev.Fact, ...], aside: list[ev.ModelsSetAside], now: Snapshot) -> Notice | None:
    holds = _in_effect(now)
    if now.state not in _MOVED_OUT or not holds or not any(fact.models for fact in aside):
        return None
    games = tuple(dict.fromkeys(v.hold.cause.name for v in holds if isinstance(v.hold.cause, GameCause)))
    cause = aside[-1].cause
    begin = f"Making room for {cause}" if cause else "Setting the models aside"
    took, freed = sum(f.took_s for f in aside), sum(f.freed_bytes for f in aside)
    is_for_games_only = all(v.hold.kind is HoldKind.GAME for v in holds)
    return Notice(
        subject=Subject.MODELS,
        title=f"{listed(games)} {'is' if len(games) == 1 else 'are'} running" if games else now.title,
        text=f"{begin} took {duration(took)}. {size(freed)} freed.",
        choices=(_KEEP_RUNNING,) if is_for_games_only else (),
        about=facts,
        hold_ids=tuple(v.hold.id for v in holds if v.hold.kind is HoldKind.GAME),
    )


def _brought_back(facts: tuple[ev.Fact, ...], back: ev.ModelsBroughtBack, now: Snapshot) -> Notice | None:
    there = [model for model in back.models if model in _loaded(now)]
    if now.state is not State.RUNNING or not there:
        return None
    failed = {f.model for f in _of(ev.RestoreFailed, facts)} - set(there)
    if failed:
        title = f"{len(there)} of {count(len(there) + len(failed), 'model')} are back"
    else:
        title = "Your models are back"
    crash = "".join(_interruption(f) + " " for f in _of(ev.ValetStarted, facts)[-1:])
    return Notice(
        subject=Subject.MODELS,
        title=title,
        text=f"{crash}{len(there)} loaded in {duration(back.took_s)}.",
        about=facts,
    )


def _interrupted(facts: tuple[ev.Fact, ...], start: ev.ValetStarted, now: Snapshot) -> Notice | None:
    n = len(now.to_bring_back)
    if not n:
        return None
    if now.state is State.RESUMING:
        what = f"{count(n, 'model')} {'is' if n == 1 else 'are'} being brought back."
    else:
        what = f"{count(n, 'model')} will be brought back."
    return Notice(subject=Subject.MODELS, title=_interruption(start).rstrip("."), text=what, about=facts)


def _interruption(start: ev.ValetStarted) -> str:
    return f"Tray Valet was interrupted {'while paused' if start.was_paused else 'with models loaded'}."


# -- failures ----------------------------------------------------------------------------------------


def _problem(subject: Subject, facts: tuple[ev.Fact, ...], title: str, text: str, *choices: Choice) -> Notice:
    return Notice(subject=subject, title=title, text=text, is_problem=True, choices=choices, about=facts)


def _restore_failed(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    return _missing_models(Subject.RESTORE_FAILED, _of(ev.RestoreFailed, facts), now, "brought back")


def _load_failed(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    return _missing_models(Subject.LOAD_FAILED, _of(ev.LoadRefused, facts), now, "loaded")


def _missing_models(
    subject: Subject, failed: list[ev.RestoreFailed] | list[ev.LoadRefused], now: Snapshot, done: str
) -> Notice | None:
    left = {fact.model: fact for fact in failed if fact.model not in _loaded(now)}
    if not left or now.state in _MOVED_OUT:
        return None
    names, last = tuple(left), list(left.values())[-1]
    why = reason_of(last.model, last.message)
    who = names[0] if len(names) == 1 else count(len(names), "model")
    text = _capitalised(why) if len(names) == 1 else f"{listed(names)}: {why}"
    about: tuple[ev.Fact, ...] = tuple(left.values())
    return _problem(subject, about, f"{who} could not be {done}", text, _TRY_AGAIN)


def _memory_held(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    held = [f for f in _of(ev.MemoryStillHeld, facts) if _still_holds(f.provider, now)]
    if not held or now.state not in _MOVED_OUT:
        return None
    what = "VRAM" if held[-1].is_vram else "RAM"
    names = tuple(dict.fromkeys(fact.provider for fact in held))
    return _problem(
        Subject.MEMORY_HELD,
        facts,
        f"{size(held[-1].held_bytes)} of {what} is still in use after the pause",
        f"{listed(names)} may need a restart.",
    )


def _still_holds(provider: str, now: Snapshot) -> bool:
    return any(
        condition.type is ConditionType.MEMORY_STILL_HELD
        for view in now.providers
        if view.name == provider
        for condition in view.conditions
    )


def _pause_takes_long(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    if now.state is not State.PAUSING:
        return None
    return _problem(Subject.PAUSE_TAKES_LONG, facts, f"{now.title} takes long", now.line)


def _reloaded(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    if now.state not in _MOVED_OUT:
        return None
    last = _of(ev.ModelReloadedDuringPause, facts)[-1]
    return _problem(
        Subject.RELOADED,
        facts,
        f"{last.model} was loaded again during the pause",
        f"{called(last.client)} asked {last.provider} for it past Tray Valet, so it is set aside again. "
        + remedy(last.client, now.router_url),
    )


def _provider(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    """A provider that stops is news only when models wait for it: people end their programs."""
    silent = {view.name: view for view in now.providers if _is_silent(view)}
    lost = [f for f in _of(ProviderLost, facts) if f.provider in silent]
    names = tuple(dict.fromkeys(fact.provider for fact in lost))
    n = sum(entry.provider in names for entry in now.to_bring_back)
    if not n:
        return None
    verb = "does" if len(names) == 1 else "do"
    return _problem(
        Subject.PROVIDER,
        facts,
        f"{listed(names)} {verb} not answer",
        f"{count(n, 'model')} will come back with {'it' if len(names) == 1 else 'them'}.",
    )


def _is_silent(view: ProviderView) -> bool:
    return view.state == "unreachable"


def _crash(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    given_up = [f for f in _of(ev.RunnerGivenUp, facts) if f.model not in _loaded(now)]
    if given_up:
        model, times = given_up[-1].model, count(given_up[-1].times, "time")
        text = f"It is not started again by itself. {_capitalised(given_up[-1].message)}"
        # Without its crashes: they are told with it, and would have it told twice.
        return _problem(
            Subject.CRASH, tuple(given_up), f"{model} ended unexpectedly {times}", text, _TRY_AGAIN
        )
    gone = [f for f in _of(ev.RunnerCrashed, facts) if f.model not in _loaded(now)]
    if not gone:
        return None
    last = gone[-1]
    again = " It is started again." if last.retry_in_s is not None else ""
    return _problem(
        Subject.CRASH, facts, f"{last.model} ended unexpectedly", _capitalised(last.message) + again
    )


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _download(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    failed = _of(DownloadFailed, facts)
    done = _of(DownloadFinished, facts)
    if not failed:
        names = tuple(dict.fromkeys(fact.model for fact in done))
        verb = "is" if len(names) == 1 else "are"
        text = f"{size(sum(fact.size_bytes for fact in done))} downloaded."
        return Notice(
            subject=Subject.DOWNLOAD, title=f"{listed(names)} {verb} ready to load", text=text, about=facts
        )
    names = tuple(dict.fromkeys(fact.model for fact in failed))
    also = f" {listed(tuple(dict.fromkeys(f.model for f in done)))} is there." if done else ""
    text = _capitalised(failed[-1].message) + also
    return _problem(Subject.DOWNLOAD, facts, f"{listed(names)} could not be downloaded", text)


def _settings(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    if now.settings_problem is None:
        return None
    return _problem(
        Subject.SETTINGS,
        facts,
        "The settings file has a mistake",
        f"The last good settings stay in use. {now.settings_problem}",
    )


def _attention(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    """What the picture does not show: it was so when it was seen."""
    return _problem(Subject.ATTENTION, facts, "Tray Valet needs a look", sentence(facts[-1]))


# -- a question --------------------------------------------------------------------------------------


def _question(facts: tuple[ev.Fact, ...], now: Snapshot) -> Notice | None:
    waiting = {g.key for g in now.games if g.action == "ask" and not g.ending}
    asked = [f for f in _of(ev.GameStarted, facts) if f.key in waiting]
    if not asked:
        return None
    return Notice(
        subject=Subject.QUESTION,
        title=f"Is {asked[-1].name} a game to step aside for?",
        text="Your models stay until you say so.",
        choices=(_YES, _NOT_THIS_TIME),
        about=(asked[-1],),
    )


_WORDS: dict[Subject, Callable[[tuple[ev.Fact, ...], Snapshot], Notice | None]] = {
    Subject.MODELS: _models,
    Subject.RESTORE_FAILED: _restore_failed,
    Subject.MEMORY_HELD: _memory_held,
    Subject.PAUSE_TAKES_LONG: _pause_takes_long,
    Subject.RELOADED: _reloaded,
    Subject.PROVIDER: _provider,
    Subject.CRASH: _crash,
    Subject.LOAD_FAILED: _load_failed,
    Subject.DOWNLOAD: _download,
    Subject.SETTINGS: _settings,
    Subject.ATTENTION: _attention,
    Subject.QUESTION: _question,
}
