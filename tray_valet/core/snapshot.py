"""The picture: one immutable value that the tray, the window, the API and the commands show.

Decides: what can be seen, in bytes and seconds. Must not: compute it (`services/picture.py` folds it).
"""

from __future__ import annotations

import msgspec

from tray_valet.core.downloads import Download
from tray_valet.core.holds import Hold
from tray_valet.core.journal import JournalEntry
from tray_valet.core.metrics import MachineSample
from tray_valet.core.models import Condition, LoadedModel, ProviderKind
from tray_valet.core.watchdog import State


class HoldView(msgspec.Struct, frozen=True, kw_only=True):
    """An active hold; `is_overridden` = the user chose to keep running."""

    hold: Hold
    is_overridden: bool
    text: str  # the reason in the log's wording
    expires_in_s: float | None = None


class GameView(msgspec.Struct, frozen=True, kw_only=True):
    """A running game. `action`: on | off | ask; `ending` = no process lives, the debounce runs."""

    key: str
    name: str
    store: str
    appid: str
    rule: str
    action: str
    pids: tuple[int, ...]
    since: float
    is_overridden: bool = False
    ending: bool = False


class ProviderView(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as last seen. `state`: ready | unreachable | unknown."""

    name: str
    kind: ProviderKind
    url: str
    is_local: bool
    state: str
    version: str | None = None
    conditions: tuple[Condition, ...] = ()
    loaded: tuple[LoadedModel, ...] = ()
    loading: tuple[str, ...] = ()
    seen_at: float = 0.0


class SignalView(msgspec.Struct, frozen=True, kw_only=True):
    """One pressure signal: raw, what our models hold of it, what others use, and why it counts or not."""

    signal: str  # ram | cpu | vram
    gpu: str = ""
    raw_pct: float
    ours_pct: float
    others_pct: float
    others_at_load_pct: float | None  # None = nothing of ours is loaded
    free_bytes: int | None
    reserve_bytes: int | None
    pause_pct: float
    resume_pct: float
    is_breached: bool  # raw is at its limit
    breached_for_s: float
    counts: bool  # it is a reason to pause
    text: str


class PauseReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the last pause went."""

    models: tuple[str, ...]
    freed_bytes: int
    took_s: float
    at: float
    is_confirmed_by_memory: bool | None  # None = could not be measured


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment. Times are Unix seconds, durations seconds."""

    version: str
    taken_at: float
    state: State
    since: float
    last_reason: str  # in the log's wording
    title: str  # what, for people
    line: str  # why and what next, for people
    holds: tuple[HoldView, ...] = ()
    resumes_in_s: float | None = None  # None = not counting down
    games: tuple[GameView, ...] = ()
    providers: tuple[ProviderView, ...] = ()
    to_bring_back: tuple[JournalEntry, ...] = ()
    last_pause: PauseReport | None = None
    sample: MachineSample | None = None
    downloads: tuple[Download, ...] = ()
    signals: tuple[SignalView, ...] = ()
    settings_problem: str | None = None
    process_source: str = ""
    gpu_missing_because: str | None = None
    is_built_in_demo: bool = False
    in_flight: int = 0
    control_url: str = ""
    router_url: str | None = None


class ActivityEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the activity list. `kind` is the fact's name, `text` the sentence."""

    id: int
    at: float
    kind: str
    text: str
    is_problem: bool = False
