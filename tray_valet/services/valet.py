"""The valet: what the edges may ask for (`core.commands.Valet`), done by the services.

Decides: what a command means in holds, loads and waits. Must not: do the work itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from tray_valet.core.commands import (
    NOTHING_FAILED,
    CatalogEntry,
    KnownGame,
    ModelState,
    QueueState,
    RecordedFact,
    Wish,
)
from tray_valet.core.config import Settings
from tray_valet.core.config_changes import check_api_change
from tray_valet.core.errors import GameRunning, ProviderUnreachable, UnknownModel, ValetError
from tray_valet.core.history import History
from tray_valet.core.holds import Hold, HoldKind
from tray_valet.core.ledger import Ledger
from tray_valet.core.metrics import MachineSample
from tray_valet.core.models import (
    ConditionType,
    InstalledModel,
    LoadedModel,
    LoadRequest,
    ModelRef,
    check_context_length,
    check_model_name,
)
from tray_valet.core.ports import Clock, ProcessTable
from tray_valet.core.route_views import RouteView
from tray_valet.core.service_plan import ServiceAction, ServiceBegun
from tray_valet.core.snapshot import ActivityEntry, Snapshot
from tray_valet.core.traffic import Ended, Exchanged, Tally, TrafficReport
from tray_valet.core.watchdog import State
from tray_valet.core.wording import title_of_pause
from tray_valet.services.activity import Activity
from tray_valet.services.admission import Admission
from tray_valet.services.catalog import Catalog
from tray_valet.services.dispatcher import Dispatcher
from tray_valet.services.ejector import Ejector
from tray_valet.services.fleet import Fleet, Slot
from tray_valet.services.game_watch import GameWatch
from tray_valet.services.history import HistoryBook
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.leases import ActiveLease, Leases
from tray_valet.services.ledger import LedgerBook
from tray_valet.services.loader import Loader
from tray_valet.services.machine import Machine
from tray_valet.services.model_states import ModelStates
from tray_valet.services.pauses import Pauses
from tray_valet.services.picture import Picture
from tray_valet.services.request_log import RequestLog
from tray_valet.services.route_outlook import RouteOutlook
from tray_valet.services.service_desk import ServiceDesk
from tray_valet.services.settings import SettingsStore
from tray_valet.services.tally import TallyBook
from tray_valet.services.traffic import Traffic
from tray_valet.services.watchdog import Watchdog

_AT_ONCE = 4  # ended requests that are noted together


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
        leases: Leases,
        games: GameWatch,
        machine: Machine,
        journal: JournalBook,
        watchdog: Watchdog,
        picture: Picture,
        desk: ServiceDesk,
        traffic: Traffic,
        tally: TallyBook,
        request_log: RequestLog,
        ledger: LedgerBook,
        history: HistoryBook,
        quit_requested: asyncio.Event,
        own_log: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._settings = settings
        self._activity = activity
        self._holds = holds
        self._fleet = fleet
        self._loader = loader
        self._dispatcher = dispatcher
        self._games = games
        self._machine = machine
        self._watchdog = watchdog
        self._picture = picture
        self._desk = desk
        self._traffic = traffic
        self._tally = tally
        self._request_log = request_log
        request_log.gather = self._note_ended
        self._ended: list[Ended] = []
        self._ledger = ledger
        self._history = history
        self._pauses = Pauses(clock, table, holds, journal, watchdog, lambda: settings.current.eviction)
        self._ejector = Ejector(
            fleet,
            loader,
            leases,
            journal,
            activity.record,
            lambda: float(settings.current.eviction.drain_seconds),
        )
        self._catalog = Catalog(fleet, loader, lambda: settings.current, clock)
        self._states = ModelStates(fleet, loader, watchdog.closed_by, traffic.last_load_s)
        self._outlook = RouteOutlook(fleet, lambda: settings.current, watchdog.closed_by, dispatcher.busy)
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
        try:
            slot, name = await self._find(check_model_name(runner, param="runner"), None)
        except UnknownModel as error:
            raise UnknownModel(error.message, remedy=error.remedy, param="runner") from None
        return slot.provider.log_tail(name)

    def ledger(self) -> Ledger:
        return self._ledger.ledger

    async def forget_ledger(self, game: str | None = None) -> int:
        return await self._ledger.forget(game)

    def history(self, minutes: int) -> History:
        return self._history.over(minutes)

    def catalog(self) -> tuple[CatalogEntry, ...]:
        return self._catalog.entries()

    def routes(self) -> tuple[RouteView, ...]:
        return self._outlook.routes()

    def model_states(self) -> tuple[ModelState, ...]:
        return self._states.of_all(self.catalog())

    # -- what passes ---------------------------------------------------------------------------------

    def queues(self) -> tuple[QueueState, ...]:
        return self._dispatcher.queues()

    def traffic(self) -> TrafficReport:
        self._note_ended()
        return self._traffic.report({state.ref: state.in_flight for state in self.queues()})

    def tally(self) -> Tally:
        return self._tally.seen()

    def note_exchange(self, ended: Ended) -> None:
        self._ended.append(ended)
        if len(self._ended) >= _AT_ONCE:
            self._note_ended()

    def note_silent(self, provider: str) -> None:
        self._fleet.doubt(provider)

    def _note_ended(self) -> None:
        """Note those that have ended: a few at a time, or before somebody asks. After each one, the next
        request of its client would wait for that."""
        ended, self._ended = self._ended, []
        for one in ended:
            self._note(one.record())

    def _note(self, record: Exchanged) -> None:
        self._request_log.note(record)
        if not record.provider and (ref := self._catalog.ref_of(record.asked)) is not None:
            # Refused before any candidate was asked: it counts for the model that was meant.
            record = msgspec.structs.replace(record, provider=ref.provider, model=ref.model)
        self._traffic.note(record)

    # -- pausing -------------------------------------------------------------------------------------

    async def pause(
        self,
        *,
        reason: str = "",
        is_forced: bool = False,
        for_s: float | None = None,
        pid: int | None = None,
    ) -> State:
        return await self._pauses.pause(reason, is_forced=is_forced, for_s=for_s, pid=pid)

    async def place_hold(
        self, *, owner: str, reason: str = "", ttl_s: float | None = None, pid: int | None = None
    ) -> Hold:
        return await self._pauses.place(owner, reason, ttl_s, pid)

    async def resume(self) -> State:
        return await self._pauses.resume()

    async def end_hold(self, hold_id: str) -> None:
        await self._pauses.end(hold_id)

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
            await self._check_answers(slot)
            await self.resume()
        loaded = await self._loader.ensure(
            slot, LoadRequest(model=name, context_length=num_ctx), is_manual=True
        )
        return ModelRef(slot.name, name), loaded

    async def _check_answers(self, slot: Slot) -> None:
        """Raise ProviderUnreachable for a provider that is still away: nothing is resumed for its sake."""
        if slot.is_down:
            await self._fleet.refresh([slot])
        if slot.is_down:
            raise ProviderUnreachable(f"{slot.name} does not answer. {slot.error}")

    async def _find(self, model: str, provider: str | None) -> tuple[Slot, str]:
        if provider is None:
            return await self._dispatcher.locate(model)
        return await self._fleet.resolve(model, provider)

    async def unload(self, model: str | None = None, *, provider: str | None = None) -> tuple[ModelRef, ...]:
        if model is not None:
            check_model_name(model)
            slot, name = await self._find(model, provider)
            targets = [(slot, name)]
        else:
            targets = [(s, m.name) for s in self._slots(provider) for m in s.loaded if s.provider.can_unload]
        return await self._ejector.unload(targets)

    async def reset_model(self, model: str) -> ModelState:
        slot, name = await self._find(check_model_name(model), None)
        ref = ModelRef(slot.name, name)
        self._loader.revival.reset(ref)
        self._fleet.clear(slot, ConditionType.LOAD_FAILED)
        return self._states.of(ref, self.catalog())

    def _slots(self, provider: str | None) -> tuple[Slot, ...]:
        if provider is None:
            return tuple(self._fleet.slots.values())
        return (self._fleet.slot(provider),)

    # -- services ------------------------------------------------------------------------------------

    async def start_service(self, provider: str | None = None) -> ServiceBegun:
        return await self._desk.begin(ServiceAction.START, provider)

    async def stop_service(self, provider: str | None = None, *, is_forced: bool = False) -> ServiceBegun:
        return await self._desk.begin(ServiceAction.STOP, provider, is_forced=is_forced)

    async def restart_service(self, provider: str | None = None) -> ServiceBegun:
        return await self._desk.begin(ServiceAction.RESTART, provider)

    def admit_now(self, wish: Wish) -> ActiveLease | None:
        return self._dispatcher.admit_now(wish)

    def admit(self, wish: Wish, *, failed: Mapping[ModelRef, ValetError] = NOTHING_FAILED) -> Admission:
        return self._dispatcher.admit(wish, failed)

    # -- settings and the end ------------------------------------------------------------------------

    async def update_settings(self, partial: Mapping[str, Any]) -> Settings:
        check_api_change(partial, self.settings)
        return await asyncio.to_thread(self._settings.update, dict(partial))

    def request_quit(self) -> None:
        self._quit_requested.set()
