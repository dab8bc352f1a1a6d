"""Facts: what has happened, in the past tense. Everything seen is folded from these.

Decides: which facts there are and what each carries (bytes, seconds); those of providers and of the disk are
in files of their own. Must not: word them (`fact_sentences.py` does).
"""

from __future__ import annotations

import msgspec

from tray_valet.core.events_disk import DiskFact, DownloadProgressed
from tray_valet.core.events_providers import ProviderFact
from tray_valet.core.holds import Hold
from tray_valet.core.watchdog import State


class GameStarted(msgspec.Struct, frozen=True, kw_only=True, tag="game_started"):
    """A game was seen. `rule` is what recognised it; `action`: on | off | ask, by the user's rules."""

    name: str
    key: str
    store: str = ""
    rule: str = ""
    pid: int = 0
    action: str = "on"


class GameEnded(msgspec.Struct, frozen=True, kw_only=True, tag="game_ended"):
    """The last process of a game has been gone for the debounce time."""

    name: str
    key: str
    ran_s: float
    is_dismissed: bool = False  # it runs on, but counts as a game no more


class HoldPlaced(msgspec.Struct, frozen=True, kw_only=True, tag="hold_placed"):
    """A reason to stay paused appeared."""

    hold: Hold


class HoldEnded(msgspec.Struct, frozen=True, kw_only=True, tag="hold_ended"):
    """A reason to stay paused is gone."""

    hold: Hold


class StateChanged(msgspec.Struct, frozen=True, kw_only=True, tag="state_changed"):
    """The watchdog went into another state."""

    before: State
    after: State
    reason: str


class ModelsSetAside(msgspec.Struct, frozen=True, kw_only=True, tag="models_set_aside"):
    """An eviction is complete and confirmed. `cause` names it as people do (`Hades`, `RAM is full`).

    `is_again`: nothing but models that were loaded past the router in mid-pause.
    """

    models: tuple[str, ...]
    freed_bytes: int
    took_s: float
    cause: str
    is_again: bool = False


class ModelsBroughtBack(msgspec.Struct, frozen=True, kw_only=True, tag="models_brought_back"):
    """A restore is complete: every journalled model is loaded again."""

    models: tuple[str, ...]
    took_s: float


class RestoreFailed(msgspec.Struct, frozen=True, kw_only=True, tag="restore_failed"):
    """One model could not be brought back; it is tried again after `next_try_s` (None: it is not)."""

    model: str
    message: str
    next_try_s: float | None = None
    provider: str = ""
    context_length: int | None = None  # what it was loaded with


class ModelLoaded(msgspec.Struct, frozen=True, kw_only=True, tag="model_loaded"):
    """A model was loaded on request."""

    model: str
    took_s: float
    size_bytes: int = 0
    client: str = ""


class ModelUnloaded(msgspec.Struct, frozen=True, kw_only=True, tag="model_unloaded"):
    """A model left memory outside a pause. `idle_s`: how long nobody used it, when that was why."""

    model: str
    size_bytes: int = 0
    idle_s: float | None = None


class ModelLoading(msgspec.Struct, frozen=True, kw_only=True, tag="model_loading"):
    """A model is on its way into memory, whoever asked."""

    provider: str
    model: str


class ModelReady(msgspec.Struct, frozen=True, kw_only=True, tag="model_ready"):
    """A model has come into memory, on request or to be brought back."""

    provider: str
    model: str
    took_s: float


class ModelUnloading(msgspec.Struct, frozen=True, kw_only=True, tag="model_unloading"):
    """A model is on its way out of memory outside a pause."""

    provider: str
    model: str


class ModelGone(msgspec.Struct, frozen=True, kw_only=True, tag="model_gone"):
    """A model has left memory outside a pause."""

    provider: str
    model: str


class LoadRefused(msgspec.Struct, frozen=True, kw_only=True, tag="load_failed"):
    """A model could not be loaded."""

    model: str
    message: str


class AnswersEnded(msgspec.Struct, frozen=True, kw_only=True, tag="answers_ended"):
    """Answers were cut short to make room."""

    count: int
    client: str = ""
    waited_s: float = 0.0


class AnswersAwaited(msgspec.Struct, frozen=True, kw_only=True, tag="answers_awaited"):
    """Answers ended by themselves while room was being made, and were waited for."""

    count: int
    client: str = ""
    waited_s: float = 0.0


class RunnerKilled(msgspec.Struct, frozen=True, kw_only=True, tag="runner_killed"):
    """A process that did not let go of its model was ended."""

    provider: str
    model: str
    waited_s: float


class RunnerCrashed(msgspec.Struct, frozen=True, kw_only=True, tag="runner_crashed"):
    """A runner of ours ended by itself; it is started again after `retry_in_s` (None: it is not).

    `is_start`: it did so at such a new start, before it was ready.
    """

    provider: str
    model: str
    message: str
    retry_in_s: float | None = None
    is_start: bool = False


class RunnerGivenUp(msgspec.Struct, frozen=True, kw_only=True, tag="runner_given_up"):
    """A runner ended by itself so often that it is not started again until somebody asks for that."""

    provider: str
    model: str
    message: str
    times: int
    within_s: float


class ModelReloadedDuringPause(msgspec.Struct, frozen=True, kw_only=True, tag="model_reloaded_during_pause"):
    """A client loaded a model at the provider itself, past the router; it is set aside again.

    `client`: the program whose connection to the provider was seen, "" = it could not be told; `pid` its
    process. `times`: how often it has done so in this pause. `out_in_s`: seconds until it is set aside.
    """

    provider: str
    model: str
    times: int
    client: str = ""
    pid: int = 0
    out_in_s: float = 0.0


class PauseUnfinished(msgspec.Struct, frozen=True, kw_only=True, tag="pause_unfinished"):
    """Not everything could be got out of memory; it is tried again. `message` says what stays, and why."""

    cause: str
    message: str


class MemoryStillHeld(msgspec.Struct, frozen=True, kw_only=True, tag="memory_still_held"):
    """The provider says that the model is gone, but its memory is not free."""

    provider: str
    held_bytes: int
    is_vram: bool


class SettingsApplied(msgspec.Struct, frozen=True, kw_only=True, tag="settings_applied"):
    """New settings are in force."""

    paths: tuple[str, ...] = ()


class SettingsBroken(msgspec.Struct, frozen=True, kw_only=True, tag="settings_broken"):
    """The settings file has a mistake; the last good settings stay."""

    message: str


class RestartNeeded(msgspec.Struct, frozen=True, kw_only=True, tag="restart_needed"):
    """Settings changed that are read at the start only."""

    paths: tuple[str, ...]


class JournalUnwritable(msgspec.Struct, frozen=True, kw_only=True, tag="journal_unwritable"):
    """What has to come back cannot be written to the disk; it is kept in memory alone."""

    path: str
    message: str


class Overcommitted(msgspec.Struct, frozen=True, kw_only=True, tag="overcommitted"):
    """A model that was loaded before we started takes more than the pause limit's share of RAM."""

    provider: str
    model: str
    size_bytes: int
    limit_pct: float
    total_bytes: int


class ValetStarted(msgspec.Struct, frozen=True, kw_only=True, tag="valet_started"):
    """The services are up. `was_interrupted`: the last run ended uncleanly; `interrupted_models`: what it
    left to bring back."""

    version: str
    was_interrupted: bool = False
    interrupted_models: tuple[str, ...] = ()
    was_paused: bool = False


Fact = (
    GameStarted
    | GameEnded
    | HoldPlaced
    | HoldEnded
    | StateChanged
    | ModelsSetAside
    | ModelsBroughtBack
    | RestoreFailed
    | ModelLoaded
    | ModelUnloaded
    | ModelLoading
    | ModelReady
    | ModelUnloading
    | ModelGone
    | LoadRefused
    | AnswersEnded
    | AnswersAwaited
    | RunnerKilled
    | RunnerCrashed
    | RunnerGivenUp
    | ModelReloadedDuringPause
    | PauseUnfinished
    | MemoryStillHeld
    | ProviderFact
    | DiskFact
    | SettingsApplied
    | SettingsBroken
    | RestartNeeded
    | JournalUnwritable
    | Overcommitted
    | ValetStarted
)


# Steps that other facts tell people better; programs follow them.
STEPS = (ModelLoading, ModelReady, ModelUnloading, ModelGone, DownloadProgressed)


def kind_of(fact: Fact) -> str:
    """The fact's name on the wire (`game_started`)."""
    return str(fact.__struct_config__.tag)
