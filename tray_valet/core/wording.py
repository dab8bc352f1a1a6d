"""Words: the sentences for people, and the log's wording of a reason.

Decides: how sizes, durations, causes and facts are said. Must not: decide what is the case.
"""

from __future__ import annotations

import math

from tray_valet.core import events as ev
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
_DONE_TO_SERVICE = {"start": "started", "stop": "stopped", "restart": "restarted"}
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


def sentence(fact: ev.Fact) -> str:
    """The line that stands in the activity list."""
    match fact:
        case ev.GameStarted(name=name, rule=rule, action=action, pid=pid):
            tail = {
                "off": " Your models stay, as you chose.",
                "ask": f" Your models stay until you say: tray-valet pause --while {pid}.",
            }.get(action, "")
            return f"{name} started. Recognised by {rule}.{tail}"
        case ev.GameEnded(name=name, ran_s=ran_s):
            return f"{name} ended after {duration(ran_s)}."
        case ev.HoldPlaced(hold=hold):
            return f"A reason to step aside: {technical_reason(hold.cause)}."
        case ev.HoldEnded(hold=hold):
            return f"No longer a reason to step aside: {technical_reason(hold.cause)}."
        case ev.StateChanged(after=after, reason=reason):
            return f"{after.value.replace('_', ' ').capitalize()}: {reason}."
        case ev.ModelsSetAside(models=models, freed_bytes=freed, took_s=took_s, cause=cause):
            room = f"Making room for {cause}" if cause else "Setting the models aside"
            return (
                f"{room} took {duration(took_s)}. {size(freed)} freed: {listed(models)}."
                if models
                else "No model was loaded, so nothing had to be set aside."
            )
        case ev.ModelsBroughtBack(models=models, took_s=took_s):
            return (
                f"Back: {listed(models)} loaded again in {duration(took_s)}, with the same context."
                if models
                else "Nothing had to be brought back."
            )
        case _:
            return _other_sentence(fact)


def _other_sentence(fact: ev.Fact) -> str:
    match fact:
        case ev.RestoreFailed(model=model, message=message, next_try_s=next_try_s):
            after = f" Trying again in {duration(next_try_s)}." if next_try_s is not None else ""
            return f"{model} could not be brought back: {reason_of(model, message)}{after}"
        case ev.ModelLoaded(model=model, took_s=took_s, size_bytes=n_bytes, client=client):
            whom = f" for {client}" if client else ""
            takes = f" It takes {size(n_bytes)}." if n_bytes else ""
            return f"{model} loaded in {duration(took_s)}{whom}.{takes}"
        case ev.ModelUnloaded(model=model, size_bytes=n_bytes, idle_s=idle_s):
            why = f" after {duration(idle_s)} without use" if idle_s is not None else ""
            freed = f" {size(n_bytes)} freed." if n_bytes else ""
            return f"{model} unloaded{why}.{freed}"
        case ev.ModelLoading(model=model):
            return f"{model} is being loaded."
        case ev.ModelReady(model=model, took_s=took_s):
            return f"{model} is ready after {duration(took_s)}."
        case ev.ModelUnloading(model=model):
            return f"{model} is being unloaded."
        case ev.ModelGone(model=model):
            return f"{model} has left memory."
        case ev.LoadRefused(model=model, message=message):
            return f"{model} could not be loaded: {reason_of(model, message)}"
        case ev.AnswersEnded(count=n, client=client, waited_s=waited_s):
            whose = f" to {client}" if client else ""
            return f"{count(n, 'answer')}{whose} ended: still writing after {duration(waited_s)}."
        case ev.AnswersAwaited(count=n, client=client, waited_s=waited_s):
            whose = f" to {client}" if client else ""
            return f"{count(n, 'answer')}{whose} finished within {duration(waited_s)}."
        case ev.RunnerKilled(provider=provider, model=model, waited_s=waited_s):
            return f"{provider} did not let go of {model} in {duration(waited_s)}, so its process was ended."
        case ev.RunnerCrashed(model=model, message=message, retry_in_s=retry_in_s, is_start=is_start):
            what = "could not be started again" if is_start else "ended unexpectedly"
            again = f" It is started again in {duration(retry_in_s)}." if retry_in_s is not None else ""
            return f"{model} {what}: {message}{again}"
        case ev.RunnerGivenUp(model=model, message=message, times=times, within_s=within_s):
            return (
                f"{model} ended unexpectedly {count(times, 'time')} within {duration(within_s)} and is not "
                f"started again by itself: {message} Once the cause is gone, load it or reset it."
            )
        case ev.ModelReloadedDuringPause(provider=provider, model=model, client=client):
            program = f"“{client}” (process {fact.pid})" if client else "A program"
            again = f" ({fact.times} times now)" if fact.times > 1 else ""
            when = f" in {duration(fact.out_in_s)}" if fact.out_in_s >= 1 else ""
            return (
                f"{program} loaded {model} at {provider} itself during the pause{again}. It is set aside "
                f"again{when}; programs that use the valet's address are not surprised."
            )
        case ev.PauseUnfinished(cause=cause, message=message):
            room = f"Making room for {cause}" if cause else "Setting the models aside"
            return f"{room} takes long. {message}"
        case ev.MemoryStillHeld(provider=provider, held_bytes=held, is_vram=is_vram):
            what = "VRAM" if is_vram else "RAM"
            return f"{size(held)} of {what} is still in use after the pause. {provider} may need a restart."
        case ev.ProviderLost(provider=provider, message=message):
            return f"{provider} does not answer. {message}"
        case ev.ProviderBack(provider=provider):
            return f"{provider} answers again."
        case ev.ServiceStarted(provider=provider, took_s=took_s, is_restart=is_restart):
            return f"{provider} {'re' if is_restart else ''}started in {duration(took_s)}."
        case ev.ServiceStopped(provider=provider, took_s=took_s, was_killed=was_killed):
            how = " It did not end when it was asked, so its process was ended." if was_killed else ""
            return f"{provider} stopped in {duration(took_s)}, as you asked.{how}"
        case ev.ServiceFailed(provider=provider, action=action, message=message):
            return f"{provider} could not be {_DONE_TO_SERVICE.get(action, action)}: {message}"
        case ev.DownloadProgressed(download=download):
            return f"{download.model} is being downloaded."
        case ev.DownloadFinished(model=model, size_bytes=n_bytes, took_s=took_s):
            takes = f" It takes {size(n_bytes)}." if n_bytes else ""
            return f"{model} was downloaded in {duration(took_s)}.{takes}"
        case ev.DownloadFailed(model=model, message=message):
            return f"{model} could not be downloaded: {message}"
        case ev.DownloadCancelled(model=model):
            return f"The download of {model} was cancelled."
        case ev.ModelDeleted(provider=provider, model=model, size_bytes=n_bytes):
            freed = f" {size(n_bytes)} freed." if n_bytes else ""
            return f"{model} was deleted from {provider}, as you asked.{freed}"
        case ev.SettingsApplied(paths=paths):
            return f"New settings are in use: {listed(paths)}." if paths else "The settings were read again."
        case ev.SettingsBroken(message=message):
            return f"The settings file has a mistake, the last good settings stay in use. {message}"
        case ev.RestartNeeded(paths=paths):
            return f"Restart Tray Valet for the new {listed(paths)}."
        case ev.JournalUnwritable(path=path, message=message):
            return (
                f"{path} cannot be written: {message}. Models that are set aside come back, "
                "unless Tray Valet is interrupted meanwhile."
            )
        case ev.Overcommitted(model=model, size_bytes=n_bytes, limit_pct=limit, total_bytes=total):
            return (
                f"{model} takes {size(n_bytes)}, more than {limit:.0f}% of the {size(total)} of RAM here. "
                "A smaller one would leave room for other programs."
            )
        case ev.ValetStarted(interrupted_models=(), was_interrupted=was_interrupted):
            if was_interrupted:
                return "Tray Valet was interrupted. Nothing had to be brought back."
            return "Tray Valet started."
        case ev.ValetStarted(interrupted_models=models, was_paused=was_paused):
            when = "while paused" if was_paused else "with models loaded"
            return (
                f"Tray Valet was interrupted {when}. {count(len(models), 'model')} will be brought back: "
                f"{listed(models)}."
            )
    return ev.kind_of(fact).replace("_", " ")


PROBLEM_FACTS = (
    ev.RestoreFailed,
    ev.LoadRefused,
    ev.RunnerCrashed,
    ev.RunnerGivenUp,
    ev.PauseUnfinished,
    ev.MemoryStillHeld,
    ev.ProviderLost,
    ev.ServiceFailed,
    ev.DownloadFailed,
    ev.SettingsBroken,
    ev.JournalUnwritable,
    ev.Overcommitted,
)
