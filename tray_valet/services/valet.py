"""The valet: what the edges may ask for (`core.commands.Valet`), done by the services.

Decides: what a command means in holds, loads and waits. Must not: do the work itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from tray_valet.core.commands import NOTHING_FAILED, CatalogEntry, KnownGame, RecordedFact, Wish
from tray_valet.core.config import Settings
from tray_valet.core.config_changes import check_api_change
from tray_valet.core.errors import GameRunning, InvalidValue, Refused, ValetError
from tray_valet.core.events import ModelUnloaded
from tray_valet.core.holds import Cause, Hold, HoldKind, ProgramCause, UserCause
from tray_valet.core.holds import find as find_hold
from tray_valet.core.metrics import MachineSample
from tray_valet.core.models import (
    InstalledModel,
    LoadedModel,
    LoadRequest,
    ModelRef,
    check_context_length,
    check_model_name,
)
from tray_valet.core.ports import Clock, ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.core.snapshot import ActivityEntry, Snapshot
from tray_valet.core.watchdog import State
from tray_valet.core.wording import title_of_pause
from tray_valet.services.activity import Activity
from tray_valet.services.dispatcher import ActiveLease, Dispatcher
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.game_watch import GameWatch
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.loader import Loader
from tray_valet.services.machine import Machine
from tray_valet.services.picture import Picture
from tray_valet.services.settings import SettingsStore
from tray_valet.services.watchdog import Watchdog

_RESUME_WAIT_S = 10.0
_PAUSE_MARGIN_S = 5.0
_PAUSED = frozenset({State.PAUSED})
_AWAKE = frozenset({State.RUNNING, State.PROVIDER_DOWN})
_USER_HOLD = "user"
_LONGEST_S = 366 * 86400.0


class ValetService:
    """Implements `core.commands.Valet`."""

    def __init__(
        self,
        *,
        clock: Clock,
        table: ProcessTable,
        settings: SettingsStore,
        activity: Activity,
        holds: HoldBook,
        fleet: Fleet,
        loader: Loader,
        dispatcher: Dispatcher,
        games: GameWatch,
        machine: Machine,
        journal: JournalBook,
        watchdog: Watchdog,
        picture: Picture,
        models_dir: Callable[[], str],
        quit_requested: asyncio.Event,
        own_log: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._clock = clock
        self._table = table
        self._settings = settings
        self._activity = activity
        self._holds = holds
        self._fleet = fleet
        self._loader = loader
        self._dispatcher = dispatcher
        self._games = games
        self._machine = machine
        self._journal = journal
        self._watchdog = watchdog
        self._picture = picture
        self._models_dir = models_dir
        self._quit_requested = quit_requested
        self._own_log = own_log

    # -- what is -------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        return self._settings.current

    def snapshot(self) -> Snapshot:
        return self._picture.take()

    def activity(self, limit: int = 200) -> tuple[ActivityEntry, ...]:
        return self._activity.entries(limit)

    def follow(self) -> AsyncIterator[Snapshot | RecordedFact]:
        return self._activity.follow(self.snapshot)

    async def sample(self) -> MachineSample:
        return await self._machine.sample()

    async def installed(self) -> tuple[tuple[str, InstalledModel], ...]:
        return tuple((slot.name, m) for slot, m in await self._fleet.installed())

    def known_games(self) -> tuple[KnownGame, ...]:
        return self._games.known()

    async def log_lines(self, runner: str | None = None) -> tuple[str, ...]:
        if runner is None:
            return await asyncio.to_thread(self._own_log)
        slot, name = await self._find(check_model_name(runner, param="runner"), None)
        return slot.provider.log_tail(name)

    def can_pull_to(self) -> str:
        return self._models_dir()

    def catalog(self) -> tuple[CatalogEntry, ...]:
        routes = self.settings.routes
        aliases = [
            CatalogEntry(
                name=alias,
                ref=ModelRef(route.candidates[0].provider, route.candidates[0].model),
                status=self._status(ModelRef(route.candidates[0].provider, route.candidates[0].model)),
                is_alias=True,
            )
            for alias, route in routes.items()
            if route.candidates
        ]
        seen = {entry.name for entry in aliases}
        models = []
        for slot, model in self._fleet.known_installed():
            ref = ModelRef(slot.name, model.name)
            name = str(ref) if model.name in seen else model.name
            seen.add(name)
            models.append(
                CatalogEntry(
                    name=name,
                    ref=ref,
                    status=self._status(ref),
                    size_bytes=model.size_bytes,
                    context_length=model.context_length,
                )
            )
        return (*aliases, *models)

    def _status(self, ref: ModelRef) -> str:
        if self._fleet.is_loaded(ref):
            return "ready"
        return "loading" if ref in self._loader.loading else "off"

    # -- pausing -------------------------------------------------------------------------------------

    async def pause(
        self,
        *,
        reason: str = "",
        is_forced: bool = False,
        for_s: float | None = None,
        pid: int | None = None,
    ) -> State:
        hold = self._hold(_USER_HOLD, "user", UserCause(reason=reason.strip()[:200]), for_s, pid)
        if is_forced:
            self._watchdog.force()
        return await self._place(hold)

    async def place_hold(
        self, *, owner: str, reason: str = "", ttl_s: float | None = None, pid: int | None = None
    ) -> Hold:
        owner = owner.strip()
        if not owner or len(owner) > 100:
            raise InvalidValue("Say who asks, in 1 to 100 characters.", param="owner")
        cause = ProgramCause(owner=owner, reason=reason.strip()[:200])
        hold = self._hold(self._holds.new_id("hold"), owner, cause, ttl_s, pid)
        await self._place(hold)
        return hold

    def _hold(self, hold_id: str, owner: str, cause: Cause, for_s: float | None, pid: int | None) -> Hold:
        if for_s is not None and not 0 < for_s <= _LONGEST_S:
            raise InvalidValue("Use more than 0 seconds and at most a year.", param="ttl_seconds")
        return Hold(
            id=hold_id,
            kind=HoldKind.USER,
            owner=owner,
            cause=cause,
            since=self._clock.wall_s(),
            expires_at_s=None if for_s is None else self._clock.monotonic_s() + for_s,
            process=self._process(pid),
        )

    def _process(self, pid: int | None) -> ProcessIdentity | None:
        if pid is None:
            return None
        process = self._table.describe(pid) if pid > 0 else None
        if process is None:
            raise InvalidValue(f"There is no process {pid}.", param="pid")
        return process.identity

    async def _place(self, hold: Hold) -> State:
        self._holds.place(hold)
        await self._journal.note_holds(self._holds.holds.active, self._clock.monotonic_s())
        eviction = self.settings.eviction
        bound_s = float(eviction.drain_seconds) + float(eviction.kill_after_seconds)
        return await self._watchdog.settled(
            _PAUSED, bound_s + float(eviction.confirm_seconds) + _PAUSE_MARGIN_S
        )

    async def resume(self) -> State:
        self._holds.resume_by_user()
        self._watchdog.resume_anyway()
        await self._journal.note_holds(self._holds.holds.active, self._clock.monotonic_s())
        return await self._watchdog.settled(_AWAKE, _RESUME_WAIT_S)

    async def end_hold(self, hold_id: str) -> None:
        hold = find_hold(self._holds.holds, hold_id)
        if hold.kind is not HoldKind.USER:
            raise Refused(
                f"The hold {hold_id!r} belongs to the valet.", remedy="Resume to keep running in spite of it."
            )
        self._holds.end(hold_id)
        await self._journal.note_holds(self._holds.holds.active, self._clock.monotonic_s())

    # -- loading -------------------------------------------------------------------------------------

    async def load(
        self,
        model: str,
        *,
        num_ctx: int | None = None,
        provider: str | None = None,
        override: bool = False,
    ) -> tuple[ModelRef, LoadedModel]:
        check_model_name(model)
        check_context_length(num_ctx)
        slot, name = await self._find(model, provider)
        games = tuple(h for h in self._holds.in_effect if h.kind is HoldKind.GAME)
        if games and not override:
            raise GameRunning(
                f"{title_of_pause(games)}: nothing is loaded while it runs.",
                remedy="End the game, or load with “override” to keep models running during it.",
            )
        if self._holds.in_effect or self._watchdog.state in (State.PAUSING, State.PAUSED):
            await self.resume()
        loaded = await self._loader.ensure(slot, LoadRequest(model=name, context_length=num_ctx))
        return ModelRef(slot.name, name), loaded

    async def _find(self, model: str, provider: str | None) -> tuple[Slot, str]:
        route = self.settings.routes.get(model)
        if route is not None and provider is None and route.candidates:
            return await self._fleet.resolve(route.candidates[0].model, route.candidates[0].provider)
        return await self._fleet.resolve(model, provider)

    async def unload(self, model: str | None = None, *, provider: str | None = None) -> tuple[ModelRef, ...]:
        if model is not None:
            check_model_name(model)
            slot, name = await self._find(model, provider)
            targets = [(slot, name)]
        else:
            targets = [(s, m.name) for s in self._slots(provider) for m in s.loaded if s.provider.can_unload]
        gone = {ModelRef(slot.name, name) for slot, name in targets}
        await self._journal.forget(gone)  # what the user unloads does not come back
        went = []
        for slot, name in targets:
            ref = ModelRef(slot.name, name)
            loaded = self._fleet.is_loaded(ref)
            await self._loader.unload(slot, name)
            if loaded is not None:
                self._activity.record(ModelUnloaded(model=name, size_bytes=loaded.size_bytes))
                went.append(ref)
        return tuple(went)

    def _slots(self, provider: str | None) -> tuple[Slot, ...]:
        if provider is None:
            return tuple(self._fleet.slots.values())
        return (self._fleet.slot(provider),)

    def admit(
        self, wish: Wish, *, failed: Mapping[ModelRef, ValetError] = NOTHING_FAILED
    ) -> AbstractAsyncContextManager[ActiveLease]:
        return self._dispatcher.admit(wish, failed)

    # -- settings and the end ------------------------------------------------------------------------

    async def update_settings(self, partial: Mapping[str, Any]) -> Settings:
        check_api_change(partial, self.settings)
        return await asyncio.to_thread(self._settings.update, dict(partial))

    def request_quit(self) -> None:
        self._quit_requested.set()
