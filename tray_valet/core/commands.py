"""The inbound port: everything the edges (API, router, tray, window) may ask of the valet.

Decides: names, units and errors of the commands. Must not: do them (`services/valet.py` does).
All methods run on the loop thread. Commands return when what was asked has been *seen* to happen, or
raise; bounded waits that run out return the state as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec

from tray_valet.core.config import Settings
from tray_valet.core.errors import ValetError
from tray_valet.core.events import Fact
from tray_valet.core.holds import Hold
from tray_valet.core.metrics import MachineSample
from tray_valet.core.models import InstalledModel, LoadedModel, ModelRef, Upstream
from tray_valet.core.snapshot import ActivityEntry, Snapshot
from tray_valet.core.watchdog import State


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


class RecordedFact(msgspec.Struct, frozen=True, kw_only=True):
    """A fact with its place in the activity."""

    entry: ActivityEntry
    fact: Fact


class Lease(Protocol):
    """A request's right to a ready model, for as long as it is in flight."""

    @property
    def ref(self) -> ModelRef: ...

    @property
    def upstream(self) -> Upstream: ...

    @property
    def reason(self) -> str:
        """Why this candidate: for `X-Valet-Reason`."""
        ...

    @property
    def revoked_by(self) -> ValetError | None:
        """Why the request must end now (a game started), or None."""
        ...

    async def wait_revoked(self) -> ValetError:
        """Wait until the request must end, and say why."""
        ...


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

    def can_pull_to(self) -> str:
        """The folder whose volume holds the models."""
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

    def admit(self, model: str, *, client: str = "") -> AbstractAsyncContextManager[Lease]:
        """Admit a request: `async with valet.admit("llama3") as lease`. Loads the model when it must.

        Raises Paused (with retry_after_s), UnknownModel, LoadFailed, ProviderUnreachable, VramExhausted.
        """
        ...

    def request_quit(self) -> None:
        """Begin the orderly end; returns at once."""
        ...
