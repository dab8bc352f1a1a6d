"""The inbound port: everything the edges (API, router, tray, window) may ask of the valet.

Decides: names, units and errors of the commands. Must not: do them (`services/valet.py` does).
All methods run on the loop thread. Commands return when what was asked has been *seen* to happen, or
raise; bounded waits that run out return the state as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from tray_valet.core.config import Settings
from tray_valet.core.config_providers import Priority
from tray_valet.core.dialects import CHAT
from tray_valet.core.errors import ValetError
from tray_valet.core.events import Fact
from tray_valet.core.history import History
from tray_valet.core.holds import Hold
from tray_valet.core.ledger import Ledger
from tray_valet.core.metrics import MachineSample
from tray_valet.core.models import InstalledModel, LoadedModel, ModelRef, Upstream
from tray_valet.core.service_plan import ServiceBegun
from tray_valet.core.snapshot import ActivityEntry, Snapshot
from tray_valet.core.traffic import Ended, Tally, TrafficReport
from tray_valet.core.watchdog import State

if TYPE_CHECKING:  # it knows the routing rules, which know this
    from tray_valet.core.route_views import RouteView

NOTHING_FAILED: Mapping[ModelRef, ValetError] = {}


class KnownGame(msgspec.Struct, frozen=True, kw_only=True):
    """An installed program of a store's library."""

    key: str
    name: str
    store: str
    appid: str
    path: str
    kind: str  # game | application | tool
    action: str  # on | off | ask


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the router serves. `name` is what clients say; `ref` where it is."""

    name: str
    ref: ModelRef
    status: str  # ready | loading | off
    size_bytes: int = 0
    context_length: int | None = None
    created: int = 0  # Unix seconds
    is_alias: bool = False
    modified_at: str = ""  # RFC 3339
    digest: str = ""
    details: Mapping[str, str] = {}  # as Ollama has them: format, family, parameter_size …


class RecordedFact(msgspec.Struct, frozen=True, kw_only=True):
    """A fact with its place in the activity."""

    entry: ActivityEntry
    fact: Fact


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the router serves, and how it is.

    `status`: off, starting, loading, ready, stopping, crashed or failed, as in the seeds. `error`: why it
    crashed or failed, one plain sentence; `retry_in_s`: seconds until it is started again by itself, None =
    it is not.
    """

    name: str  # as the catalog calls it
    ref: ModelRef
    status: str
    port: int | None = None  # where its own runner listens
    size_bytes: int = 0
    vram_bytes: int = 0
    load_s: float | None = None  # how long the last load took
    error: str = ""
    attempts: int = 0  # starts that failed, or that crashed, in a row
    retry_in_s: float | None = None


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """One model's waiting line."""

    ref: ModelRef
    waiting: int = 0  # also at the gate, for the end of a pause
    in_flight: int = 0
    slots: int | None = None  # None = no limit of ours
    admitted_total: int = 0
    finished_total: int = 0
    rejected_total: int = 0  # the line was full, or the wait too long


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A client's request, as far as choosing a model for it goes."""

    model: str  # as the client says it: a model, `provider/model` or an alias
    path: str = CHAT  # of `core.dialects`: only providers that serve it are candidates
    client: str = ""  # the name of its key; "" without keys
    priority: Priority | None = None  # None = as the route says, else normal
    context_length: int | None = None  # tokens that the request itself asks for (Ollama's `num_ctx`)


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """What a route changes in a request. `keep_alive_s`: `math.inf` = for ever, None = no change."""

    set: dict[str, Any] = {}
    strip: tuple[str, ...] = ()
    context_length: int | None = None  # tokens
    keep_alive_s: float | None = None


class Lease(Protocol):
    """A request's right to a ready model, for as long as it is in flight."""

    @property
    def ref(self) -> ModelRef: ...

    @property
    def upstream(self) -> Upstream: ...

    @property
    def overrides(self) -> Overrides | None:
        """What the route changes in the request; None = nothing."""
        ...

    @property
    def reason(self) -> str:
        """Why this candidate: for `X-Valet-Reason`."""
        ...

    @property
    def has_next(self) -> bool:
        """Whether another candidate may be asked should this one fail before its first byte."""
        ...

    @property
    def failed(self) -> Mapping[ModelRef, ValetError]:
        """The candidates before this one that could not serve, and why."""
        ...

    @property
    def queue_s(self) -> float:
        """Seconds that the request waited at the gate and for its turn."""
        ...

    @property
    def load_s(self) -> float:
        """Seconds that it waited for the model to be loaded."""
        ...

    @property
    def revoked_by(self) -> ValetError | None:
        """Why the request must end now (a game started), or None."""
        ...

    def when_revoked(self, call: Callable[[ValetError], None]) -> None:
        """Have `call` called on the loop when the request must end; at once if that is so already."""
        ...

    def end(self) -> None:
        """The request is over: the model is its no more. More than once: fine."""
        ...

    async def __aenter__(self) -> Lease:
        """Itself: `async with` ends it."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Valet(Protocol):
    """The valet as its edges see it."""

    @property
    def settings(self) -> Settings: ...

    def snapshot(self) -> Snapshot: ...

    def activity(self, limit: int = 200) -> tuple[ActivityEntry, ...]:
        """The newest entries, newest first."""
        ...

    def follow(self) -> AsyncIterator[Snapshot | RecordedFact]:
        """A snapshot first, then every fact as it happens; a reader that falls behind gets a fresh
        snapshot in place of what it missed. Ends when the valet stops."""
        ...

    async def sample(self) -> MachineSample:
        """A live sample of the machine (at most 1 s old)."""
        ...

    async def installed(self) -> tuple[tuple[str, InstalledModel], ...]:
        """(provider, model) over all providers that answer."""
        ...

    def known_games(self) -> tuple[KnownGame, ...]: ...

    async def log_lines(self, runner: str | None = None) -> tuple[str, ...]:
        """The last lines of the valet's own log, or what a model's runner wrote last; oldest first, 200 at
        most. () where the runner is not our child. Raises UnknownModel."""
        ...

    def ledger(self) -> Ledger:
        """What is remembered of each game that the models stepped aside for."""
        ...

    async def forget_ledger(self, game: str | None = None) -> int:
        """Forget one game (by key or name), or all; returns how many. Raises NotFound."""
        ...

    def history(self, minutes: int) -> History:
        """How full the machine was over the last 1 to 1440 minutes. Raises InvalidValue."""
        ...

    async def pause(
        self,
        *,
        reason: str = "",
        is_forced: bool = False,
        for_s: float | None = None,
        pid: int | None = None,
    ) -> State:
        """The user's pause. Returns once paused is true (or `pausing` when its bounded time ran out).

        Forced: answers in progress get no drain and runners are killed at once.
        """
        ...

    async def resume(self) -> State:
        """The user's resume: own pauses end, present games and pressure are overridden.

        Returns `running`, or `resuming` when the models take longer than 10 s to come back.
        """
        ...

    async def load(
        self,
        model: str,
        *,
        num_ctx: int | None = None,
        provider: str | None = None,
        override: bool = False,
    ) -> tuple[ModelRef, LoadedModel]:
        """Load and wait until ready. Raises GameRunning, UnknownModel, LoadFailed, InvalidValue …"""
        ...

    async def unload(self, model: str | None = None, *, provider: str | None = None) -> tuple[ModelRef, ...]:
        """Unload one model, or all. Returns what went. Raises UnknownModel."""
        ...

    async def start_service(self, provider: str | None = None) -> ServiceBegun:
        """Begin to start the server of a provider (None: the one that has a service). Returns when begun;
        how it went is a fact. Raises NotFound, NotSupported with the remedy, Refused while it is busy."""
        ...

    async def stop_service(self, provider: str | None = None, *, is_forced: bool = False) -> ServiceBegun:
        """Begin to stop it; forced: its runners are killed first. As `start_service`."""
        ...

    async def restart_service(self, provider: str | None = None) -> ServiceBegun:
        """Begin to restart it. As `start_service`."""
        ...

    async def place_hold(
        self, *, owner: str, reason: str = "", ttl_s: float | None = None, pid: int | None = None
    ) -> Hold:
        """A program's pause. Returns once it is in effect (see `pause`). Raises InvalidValue."""
        ...

    async def end_hold(self, hold_id: str) -> None:
        """Raises NotFound; holds of games and pressure cannot be ended so (Refused)."""
        ...

    async def update_settings(self, partial: Mapping[str, Any]) -> Settings:
        """Validate, store and apply a partial change. Raises SettingsError; then nothing is stored."""
        ...

    def catalog(self) -> tuple[CatalogEntry, ...]:
        """What the router serves, aliases first."""
        ...

    def admit_now(self, wish: Wish) -> Lease | None:
        """A lease, if nothing is in the way at this moment: its `end` is due. Else None, and nothing has
        happened."""
        ...

    def admit(
        self, wish: Wish, *, failed: Mapping[ModelRef, ValetError] = NOTHING_FAILED
    ) -> AbstractAsyncContextManager[Lease]:
        """Admit a request: `async with valet.admit(wish) as lease`. Waits for its turn and loads the model
        when it must; a candidate that cannot serve gives way to the next.

        `failed`: candidates that were asked for this request already, and how they failed; they are left
        out, and when none is left the last one's error is raised. Raises Paused (with retry_after_s),
        QueueFull, TimedOut, UnknownModel, NotSupported (the path), LoadFailed, ProviderUnreachable,
        VramExhausted.
        """
        ...

    def routes(self) -> tuple[RouteView, ...]:
        """Every alias, who would answer it now, and why."""
        ...

    def model_states(self) -> tuple[ModelState, ...]:
        """Every model that the router serves (aliases left out), with what is the matter with it."""
        ...

    async def reset_model(self, model: str) -> ModelState:
        """Forget that a model failed or crashed, so that the next request starts it anew. Raises
        UnknownModel."""
        ...

    def queues(self) -> tuple[QueueState, ...]:
        """The waiting lines of models that were asked for; bounded, whatever names clients send."""
        ...

    def traffic(self) -> TrafficReport:
        """What passed through the router: totals since the start, figures over the last 1,000 requests."""
        ...

    def tally(self) -> Tally:
        """What has happened since the start, counted."""
        ...

    def note_exchange(self, ended: Ended) -> None:
        """Take down how a request ended. Quick: it is called for every one, and the next one may be there."""
        ...

    def note_silent(self, provider: str) -> None:
        """A request found that this provider does not answer: it is looked at, so that what is told of it
        follows. Quick, and fine for one that is not there."""
        ...

    def request_quit(self) -> None:
        """Begin the orderly end; returns at once."""
        ...
