"""The sentence for each fact, as it stands in the activity list and in the log.

Decides: how a fact is said, and which facts tell of a problem. Must not: decide what is the case.
"""

from __future__ import annotations

from tray_valet.core import events as ev
from tray_valet.core.events_disk import (
    DiskFact,
    DownloadCancelled,
    DownloadFailed,
    DownloadFinished,
    DownloadProgressed,
    ModelDeleted,
)
from tray_valet.core.events_providers import (
    ProviderBack,
    ProviderFact,
    ProviderLost,
    ServiceFailed,
    ServiceStarted,
    ServiceStopped,
)
from tray_valet.core.reload_fights import called
from tray_valet.core.revival import REMEDY, given_up
from tray_valet.core.wording import count, duration, listed, reason_of, size, technical_reason

_DONE_TO_SERVICE = {"start": "started", "stop": "stopped", "restart": "restarted"}

_OfReason = ev.GameStarted | ev.GameEnded | ev.HoldPlaced | ev.HoldEnded | ev.StateChanged
_OfPause = (
    ev.ModelsSetAside
    | ev.AnswersEnded
    | ev.AnswersAwaited
    | ev.RunnerKilled
    | ev.ModelReloadedDuringPause
    | ev.PauseUnfinished
    | ev.MemoryStillHeld
    | ev.ModelsBroughtBack
    | ev.RestoreFailed
)
_OfModel = (
    ev.ModelLoading
    | ev.ModelReady
    | ev.ModelLoaded
    | ev.LoadRefused
    | ev.ModelUnloading
    | ev.ModelGone
    | ev.ModelUnloaded
    | ev.RunnerCrashed
    | ev.RunnerGivenUp
    | ev.Overcommitted
)
_OfValet = ev.ValetStarted | ev.SettingsApplied | ev.SettingsBroken | ev.RestartNeeded | ev.JournalUnwritable

PROBLEM_FACTS = (
    ev.RestoreFailed,
    ev.LoadRefused,
    ev.RunnerCrashed,
    ev.RunnerGivenUp,
    ev.PauseUnfinished,
    ev.MemoryStillHeld,
    ProviderLost,
    ServiceFailed,
    DownloadFailed,
    ev.SettingsBroken,
    ev.JournalUnwritable,
    ev.Overcommitted,
)


def sentence(fact: ev.Fact) -> str:
    """The line that stands in the activity list."""
    if isinstance(fact, _OfReason):
        return _of_reason(fact)
    if isinstance(fact, _OfPause):
        return _of_pause(fact)
    if isinstance(fact, _OfModel):
        return _of_model(fact)
    if isinstance(fact, ProviderFact):
        return _of_provider(fact)
    if isinstance(fact, DiskFact):
        return _of_disk(fact)
    return _of_valet(fact)


def _of_reason(fact: _OfReason) -> str:
    match fact:
        case ev.GameStarted(name=name, rule=rule, action=action, pid=pid):
            tail = {
                "off": " Your models stay, as you chose.",
                "ask": f" Your models stay until you say: tray-valet pause --while {pid}.",
            }.get(action, "")
            return f"{name} started. Recognised by {rule}.{tail}"
        case ev.GameEnded(name=name, is_dismissed=True):
            return f"{name} no longer counts as a game."
        case ev.GameEnded(name=name, ran_s=ran_s):
            return f"{name} ended after {duration(ran_s)}."
        case ev.HoldPlaced(hold=hold):
            return f"A reason to step aside: {technical_reason(hold.cause)}."
        case ev.HoldEnded(hold=hold):
            return f"No longer a reason to step aside: {technical_reason(hold.cause)}."
        case ev.StateChanged(after=after, reason=reason):
            return f"{after.value.replace('_', ' ').capitalize()}: {reason}."


def _of_pause(fact: _OfPause) -> str:
    match fact:
        case ev.ModelsSetAside(models=()):
            return "No model was loaded, so nothing had to be set aside."
        case ev.ModelsSetAside(models=models, freed_bytes=freed, took_s=took_s, cause=cause):
            return f"{_making_room(cause)} took {duration(took_s)}. {size(freed)} freed: {listed(models)}."
        case ev.AnswersEnded(count=n, client=client, waited_s=waited_s):
            return f"{_answers(n, client)} ended: still writing after {duration(waited_s)}."
        case ev.AnswersAwaited(count=n, client=client, waited_s=waited_s):
            return f"{_answers(n, client)} finished within {duration(waited_s)}."
        case ev.RunnerKilled(provider=provider, model=model, waited_s=waited_s):
            return f"{provider} did not let go of {model} in {duration(waited_s)}, so its process was ended."
        case ev.ModelReloadedDuringPause(provider=provider, model=model, client=client, pid=pid):
            again = f" ({fact.times} times now)" if fact.times > 1 else ""
            when = f" in {duration(fact.out_in_s)}" if fact.out_in_s >= 1 else ""
            return (
                f"{called(client, pid)} loaded {model} at {provider} itself during the pause{again}. It is "
                f"set aside again{when}; programs that use the valet's address are not surprised."
            )
        case ev.PauseUnfinished(cause=cause, message=message):
            return f"{_making_room(cause)} takes long. {message}"
        case ev.MemoryStillHeld(provider=provider, held_bytes=held, is_vram=is_vram):
            what = "VRAM" if is_vram else "RAM"
            return f"{size(held)} of {what} is still in use after the pause. {provider} may need a restart."
        case ev.ModelsBroughtBack(models=()):
            return "Nothing had to be brought back."
        case ev.ModelsBroughtBack(models=models, took_s=took_s):
            return f"Back: {listed(models)} loaded again in {duration(took_s)}, with the same context."
        case ev.RestoreFailed(model=model, message=message, next_try_s=next_try_s):
            after = f" Trying again in {duration(next_try_s)}." if next_try_s is not None else ""
            return f"{model} could not be brought back: {reason_of(model, message)}{after}"


def _of_model(fact: _OfModel) -> str:
    match fact:
        case ev.ModelLoading(model=model):
            return f"{model} is being loaded."
        case ev.ModelReady(model=model, took_s=took_s):
            return f"{model} is ready after {duration(took_s)}."
        case ev.ModelLoaded(model=model, took_s=took_s, size_bytes=n_bytes, client=client):
            whom = f" for {client}" if client else ""
            return f"{model} loaded in {duration(took_s)}{whom}.{_takes(n_bytes)}"
        case ev.LoadRefused(model=model, message=message):
            return f"{model} could not be loaded: {reason_of(model, message)}"
        case ev.ModelUnloading(model=model):
            return f"{model} is being unloaded."
        case ev.ModelGone(model=model):
            return f"{model} has left memory."
        case ev.ModelUnloaded(model=model, size_bytes=n_bytes, idle_s=idle_s):
            why = f" after {duration(idle_s)} without use" if idle_s is not None else ""
            return f"{model} unloaded{why}.{_freed(n_bytes)}"
        case ev.RunnerCrashed(model=model, message=message, retry_in_s=retry_in_s, is_start=is_start):
            what = "could not be started again" if is_start else "ended unexpectedly"
            again = f" It is started again in {duration(retry_in_s)}." if retry_in_s is not None else ""
            return f"{model} {what}: {message}{again}"
        case ev.RunnerGivenUp(model=model, message=message, times=times, within_s=within_s):
            return f"{given_up(model, times, within_s, message)} {REMEDY}"
        case ev.Overcommitted(model=model, size_bytes=n_bytes, limit_pct=limit, total_bytes=total):
            return (
                f"{model} takes {size(n_bytes)}, more than {limit:.0f}% of the {size(total)} of RAM here. "
                "A smaller one would leave room for other programs."
            )


def _of_provider(fact: ProviderFact) -> str:
    match fact:
        case ProviderLost(provider=provider, message=message):
            return f"{provider} does not answer. {message}"
        case ProviderBack(provider=provider):
            return f"{provider} answers again."
        case ServiceStarted(provider=provider, took_s=took_s, is_restart=is_restart):
            return f"{provider} {'re' if is_restart else ''}started in {duration(took_s)}."
        case ServiceStopped(provider=provider, took_s=took_s, was_killed=was_killed):
            how = " It did not end when it was asked, so its process was ended." if was_killed else ""
            return f"{provider} stopped in {duration(took_s)}, as you asked.{how}"
        case ServiceFailed(provider=provider, action=action, message=message):
            return f"{provider} could not be {_DONE_TO_SERVICE.get(action, action)}: {message}"


def _of_disk(fact: DiskFact) -> str:
    match fact:
        case DownloadProgressed(download=download):
            return f"{download.model} is being downloaded."
        case DownloadFinished(model=model, size_bytes=n_bytes, took_s=took_s):
            return f"{model} was downloaded in {duration(took_s)}.{_takes(n_bytes)}"
        case DownloadFailed(model=model, message=message):
            return f"{model} could not be downloaded: {message}"
        case DownloadCancelled(model=model):
            return f"The download of {model} was cancelled."
        case ModelDeleted(provider=provider, model=model, size_bytes=n_bytes):
            return f"{model} was deleted from {provider}, as you asked.{_freed(n_bytes)}"


def _of_valet(fact: _OfValet) -> str:
    match fact:
        case ev.ValetStarted():
            return _of_start(fact)
        case ev.SettingsApplied(paths=()):
            return "The settings were read again."
        case ev.SettingsApplied(paths=paths):
            return f"New settings are in use: {listed(paths)}."
        case ev.SettingsBroken(message=message):
            return f"The settings file has a mistake, the last good settings stay in use. {message}"
        case ev.RestartNeeded(paths=paths):
            return f"Restart Tray Valet for the new {listed(paths)}."
        case ev.JournalUnwritable(path=path, message=message):
            return (
                f"{path} cannot be written: {message}. Models that are set aside come back, "
                "unless Tray Valet is interrupted meanwhile."
            )


def _of_start(start: ev.ValetStarted) -> str:
    models = start.interrupted_models
    if models:
        when = "while paused" if start.was_paused else "with models loaded"
        return (
            f"Tray Valet was interrupted {when}. {count(len(models), 'model')} will be brought back: "
            f"{listed(models)}."
        )
    if start.was_interrupted:
        return "Tray Valet was interrupted. Nothing had to be brought back."
    return "Tray Valet started."


def _making_room(cause: str) -> str:
    return f"Making room for {cause}" if cause else "Setting the models aside"


def _answers(n: int, client: str) -> str:
    return count(n, "answer") + (f" to {client}" if client else "")


def _takes(n_bytes: int) -> str:
    return f" It takes {size(n_bytes)}." if n_bytes else ""


def _freed(n_bytes: int) -> str:
    return f" {size(n_bytes)} freed." if n_bytes else ""
