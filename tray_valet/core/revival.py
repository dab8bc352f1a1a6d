"""The rule for runners that crash and models that cannot start: when to start again, when to give up.

Decides: how long to wait before the next start, and after how much trouble there is none. Times come in as
monotonic seconds. Must not: start anything (`services/revival.py` does).

Two things are told apart. A runner that was ready and ended is started again by itself, later each time,
and given up when it goes on. A model that could not be loaded is not started by itself; requests may try,
but not over and over.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tray_valet.core.config import Settings
from tray_valet.core.config_providers import LlamaServerSettings
from tray_valet.core.models import LoadRequest, ModelRef
from tray_valet.core.wording import count, duration

REMEDY = "Once the cause is gone, load it or reset it."


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How much trouble is borne. Seconds, and numbers of starts."""

    first_wait_s: float = 1.0  # before the first start after a crash; twice as long after each next one
    longest_wait_s: float = 60.0
    restarts: int = 5  # so many in `window_s`; one crash more, and it is given up
    window_s: float = 600.0
    failed_starts: int = 3  # in a row; from then on requests are refused for a while
    first_refusal_s: float = 30.0  # twice as long after each further failure
    longest_refusal_s: float = 300.0


class TroubleStatus(StrEnum):
    """What is the matter, in the words of a model's status."""

    CRASHED = "crashed"  # it ended by itself and is started again
    FAILED = "failed"  # it could not be started, or was given up


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What is the matter with a model. `retry_in_s`: until the next start; None = none comes by itself."""

    status: TroubleStatus
    attempts: int  # crashes in the window, or failed starts in a row
    error: str  # one plain sentence, remedy included
    retry_in_s: float | None = None
    log_tail: tuple[str, ...] = ()


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """A runner that was ready has ended by itself. `request` loads the model as it was loaded."""

    ref: ModelRef
    reason: str  # one plain clause: `its runner was ended by SIGSEGV.`
    request: LoadRequest
    log_tail: tuple[str, ...] = ()


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one model (monotonic seconds)."""

    crashes: tuple[float, ...] = ()  # the times of those in the window, failed restarts among them
    failed_starts: int = 0  # in a row
    next_start_s: float | None = None  # when it is started again by itself
    refused_until_s: float | None = None
    is_given_up: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether nothing is worth remembering."""
        return self == History()


def after_crash(history: History, now_s: float, patience: Patience) -> History:
    """The history with one crash more: the next start is set, or the model is given up."""
    crashes = (*(t for t in history.crashes if now_s - t < patience.window_s), now_s)
    if len(crashes) > patience.restarts:
        return History(crashes=crashes, is_given_up=True)
    wait_s = _doubled(patience.first_wait_s, len(crashes) - 1, patience.longest_wait_s)
    return History(crashes=crashes, next_start_s=now_s + wait_s)


def after_failed_start(history: History, now_s: float, patience: Patience) -> History:
    """The history with one failed start more. One that was to follow a crash counts as a crash."""
    if history.next_start_s is not None:
        return after_crash(history, now_s, patience)
    failed = history.failed_starts + 1
    refused_until_s = None
    if failed >= patience.failed_starts:
        wait_s = _doubled(
            patience.first_refusal_s, failed - patience.failed_starts, patience.longest_refusal_s
        )
        refused_until_s = now_s + wait_s
    return msgspec.structs.replace(history, failed_starts=failed, refused_until_s=refused_until_s)


def after_start(history: History, now_s: float, patience: Patience) -> History:
    """The history of a model that is ready: crashes stay in mind for the window, the rest is forgotten."""
    return History(crashes=tuple(t for t in history.crashes if now_s - t < patience.window_s))


def without_restart(history: History) -> History:
    """The history of a model that was unloaded on purpose: it is not started by itself any more."""
    return msgspec.structs.replace(history, next_start_s=None)


def given_up(model: str, times: int, within_s: float, reason: str) -> str:
    """The sentence for a runner that ended so often (`times` within seconds) that it is left alone."""
    return (
        f"{model} ended unexpectedly {count(times, 'time')} within {duration(within_s)} and is not "
        f"started again by itself: {reason}"
    )


def told(model: str, history: History, reason: str, patience: Patience) -> str:
    """What is the matter, in one sentence; `reason` is the last crash's or failure's, a plain clause."""
    if history.is_given_up:
        return given_up(model, len(history.crashes), patience.window_s, reason)
    if history.next_start_s is not None:
        return f"{model} ended unexpectedly: {reason}"
    return f"{model} could not be loaded, {count(history.failed_starts, 'time')} in a row: {reason}"


def trouble_of(
    model: str, history: History, reason: str, log_tail: tuple[str, ...], now_s: float, patience: Patience
) -> Trouble | None:
    """The trouble that a history tells of; None where there is none now."""
    is_crashing = history.is_given_up or history.next_start_s is not None
    if not is_crashing and not history.failed_starts:
        return None
    error = told(model, history, reason, patience)
    return Trouble(
        status=TroubleStatus.CRASHED if history.next_start_s is not None else TroubleStatus.FAILED,
        attempts=len(history.crashes) if is_crashing else history.failed_starts,
        error=f"{error} {REMEDY}" if history.is_given_up else error,
        retry_in_s=None if history.next_start_s is None else max(0.0, history.next_start_s - now_s),
        log_tail=log_tail,
    )


def definition_of(settings: Settings, ref: ModelRef) -> object:
    """What of the settings makes this model start or fail; trouble is forgotten when it changes."""
    provider = (settings.providers or {}).get(ref.provider)
    if isinstance(provider, LlamaServerSettings):
        own = provider.models.get(ref.model)
        return (msgspec.structs.replace(provider, models={}), own)
    return provider


def _doubled(first_s: float, times: int, longest_s: float) -> float:
    return min(longest_s, first_s * 2.0 ** min(times, 60))
