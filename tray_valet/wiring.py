"""The wiring: every object is built here, by hand, and handed what it needs.

Decides: who knows whom. Must not: start anything (`lifecycle.py` does) or hold rules of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets

from tray_valet.adapters.machine import LibraryScanners, gpu_sensor, host_sensor, pressure_notices
from tray_valet.adapters.notifications import system_notifier
from tray_valet.adapters.processes import ProcessAdapters
from tray_valet.adapters.providers import ProviderBuilder
from tray_valet.adapters.services import ServiceAdapters
from tray_valet.core.config import Appearance, LocalAccess, Settings
from tray_valet.core.desks import Desks
from tray_valet.core.revival import Crash, definition_of
from tray_valet.core.watchdog import State
from tray_valet.desktop.autostart import launch_command, system_autostart
from tray_valet.desktop.log_files import log_path, log_tail
from tray_valet.desktop.notify_tray import TrayBalloons
from tray_valet.desktop.paths import Directories
from tray_valet.desktop.secrets import Secrets
from tray_valet.desktop.system import current_system, is_root
from tray_valet.desktop.window_opener import WindowOpener, WindowPage
from tray_valet.services.activity import Activity
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.autostart_wish import AutostartWish
from tray_valet.services.clock import SystemClock
from tray_valet.services.cpu_yield import CpuYield
from tray_valet.services.declared_models import DeclaredModels
from tray_valet.services.disk_guard import DiskGuard
from tray_valet.services.dispatcher import Dispatcher
from tray_valet.services.download_book import DownloadBook
from tray_valet.services.downloads import Downloads
from tray_valet.services.evictor import Evictor
from tray_valet.services.fit import Fit
from tray_valet.services.fleet import Fleet
from tray_valet.services.game_watch import GameWatch
from tray_valet.services.history import HistoryBook
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.idle import IdleUnloader
from tray_valet.services.journal_book import JournalBook
from tray_valet.services.leases import Leases
from tray_valet.services.ledger import LedgerBook
from tray_valet.services.loader import Loader
from tray_valet.services.machine import Machine
from tray_valet.services.memory_probe import MemoryProbe
from tray_valet.services.model_store import StoreDesk
from tray_valet.services.models_folder import ModelsFolder
from tray_valet.services.notifier import NotifierService
from tray_valet.services.picture import Addresses, Picture
from tray_valet.services.pressure_watch import PressureWatch
from tray_valet.services.provider_checks import ProviderChecks
from tray_valet.services.provider_set import ProviderSet
from tray_valet.services.reload_fights import ReloadFights
from tray_valet.services.request_log import RequestLog
from tray_valet.services.restorer import Restorer
from tray_valet.services.revival import Revival
from tray_valet.services.runner_service import RunnerService
from tray_valet.services.server_end import ServerEnd
from tray_valet.services.service_desk import ServiceDesk
from tray_valet.services.settings import SettingsStore
from tray_valet.services.settings_desk import SettingsShown
from tray_valet.services.setup import SetupDesk
from tray_valet.services.tally import TallyBook
from tray_valet.services.traffic import Traffic
from tray_valet.services.valet import ValetService
from tray_valet.services.watchdog import Watchdog
from tray_valet.web.control.api import ControlApi
from tray_valet.web.control.window_codes import WindowCodes
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import ControlKeys, RouterKeys
from tray_valet.web.edge.policies import control_policy, router_policy
from tray_valet.web.edge.server import WebServer
from tray_valet.web.relay.dialect_errors import answer_at, unexpected_at
from tray_valet.web.router.api import RouterApi

_LOG = logging.getLogger(__name__)
_LIGHT_GROUND, _DARK_GROUND = "#f5f6f8", "#16181c"  # the page's own, so that nothing flashes before it
_BUSY_LOOK_S = 2.0  # how often providers are looked at while something is to be set aside or brought back


class Wiring:
    """All objects of a valet. Build and use it on the loop."""

    def __init__(self, directories: Directories, settings: SettingsStore) -> None:
        self.directories = directories
        self.store = settings
        self.quit_requested = asyncio.Event()
        self.fleet_changed = asyncio.Event()
        self.addresses = Addresses()
        self.token = secrets.token_urlsafe(32)
        self.secrets = Secrets(directories.secrets_file)
        self.autostart = AutostartWish(
            directories.autostart_file,
            system_autostart,
            lambda: launch_command(
                config_path=None if settings.path == directories.config_file else str(settings.path),
                is_root_allowed=is_root(),  # we run, so it is
            ),
        )
        self._build_ground()
        self._build_loads()
        self._build_watchdog()
        self._build_watches()
        self._build_providers()
        self._build_downloads()
        self._build_facade()
        self._build_servers()

    @property
    def settings(self) -> Settings:
        return self.store.current

    def _build_ground(self) -> None:
        """What everybody stands on: time, processes, the record, the books, the machine."""
        self.clock = SystemClock()
        self._system = current_system()
        processes = ProcessAdapters(self._system)
        self.table, self._process_watch = processes.table, processes.watch
        self.activity = Activity(self.clock)
        record = self.activity.record
        self.holds = HoldBook(self.clock, self.table, record, self._on_holds_change)
        self.fleet = Fleet(self.clock, record, self._on_fleet_change)
        self._models_folder = ModelsFolder(self.fleet, str(self.directories.models_dir))
        self.find_models_folder = self._models_folder.find
        self.tally = TallyBook(self.clock)
        self.activity.tell(self.tally.note)
        self.ledger = LedgerBook(self.directories.ledger_file, self.clock, write_atomically)
        self.activity.tell(self.ledger.note)
        self.traffic = Traffic(self.fleet.knows)
        self.activity.tell(self.traffic.note_fact)
        self.request_log = RequestLog(self.directories.requests_file)
        self.journal = JournalBook(self.directories.journal_file, self.clock, write_atomically, record)
        self._gpus = gpu_sensor(self.clock)
        self._host = host_sensor(self.clock)
        self._probe = MemoryProbe(self.table, self._gpus)
        self.machine = Machine(
            self._host,
            self._gpus,
            self.clock,
            lambda: self._models_folder.path,
            lambda: bool(self.fleet.residents()),
        )

    def _build_loads(self) -> None:
        """Who brings models in on demand, and takes idle ones out."""
        self.leases = Leases()
        self.dispatcher = Dispatcher(
            self.fleet,
            self.clock,
            self.leases,
            lambda: self.settings,
            lambda demand: self.watchdog.closed_by(demand),
            lambda ref: self.restorer.request_for(ref),
            lambda: self.cpu_yield.is_yielding,
        )
        self.cpu_yield = CpuYield(self.fleet, lambda: self.holds.in_effect)
        self.revival = Revival(
            self.fleet,
            self.clock,
            self.activity.record,
            lambda demand: self.watchdog.closed_by(demand),
            lambda ref: definition_of(self.settings, ref),
            lambda slot, request: self.loader.ensure(slot, request),
        )
        self.loader = Loader(
            self.fleet,
            self.clock,
            self.activity.record,
            lambda: self.settings.models,
            lambda ref: bool(self.leases.count(ref)),
            lambda demand: self.watchdog.closed_by(demand),
            lambda ref: any(queue.waiting for queue in self.dispatcher.queues() if queue.ref == ref),
            self.revival,
            Fit(
                self.fleet,
                lambda: self.machine.sample(0.0),
                self._probe.with_vram,
                lambda: self.settings.models,
            ),
        )
        self.dispatcher.loader = self.loader
        self.idle = IdleUnloader(
            self.fleet,
            self.loader,
            self.leases,
            self.activity.record,
            lambda: float(self.settings.models.idle_timeout_seconds),
        )

    def _build_watchdog(self) -> None:
        """Who decides about a pause, and the two hands that act."""
        self.evictor = Evictor(
            self.fleet,
            self.leases,
            self.loader,
            self.journal,
            self._probe,
            self.clock,
            self.activity.record,
            lambda: self.settings.eviction,
        )
        self.restorer = Restorer(self.fleet, self.loader, self.journal, self.clock, self.activity.record)
        self.fights = ReloadFights(
            self.fleet, self.table, self.clock, self.activity.record, lambda: self.addresses.router_url
        )
        self.watchdog = Watchdog(
            self.clock,
            self.holds,
            self.fleet,
            self.evictor,
            self.restorer,
            self.fights,
            self.activity.record,
            lambda: self.machine.latest,
            self._on_state_change,
        )

    def _build_watches(self) -> None:
        """Who sees games and pressure."""
        scanners = LibraryScanners(self._system, lambda: self.settings.games)
        self.games = GameWatch(
            self._process_watch,
            self.table,
            scanners.current,
            self._system,
            self.holds,
            self.clock,
            self.activity.record,
            lambda: self.settings.games,
        )
        self.pressure = PressureWatch(
            self.machine, self.table, self.fleet, self.holds, self.clock, lambda: self.settings.thresholds
        )
        self.pressure_notices = pressure_notices(self._system)
        self.history = HistoryBook(self.clock, lambda: self.pressure.signals, lambda: self.watchdog.state)
        self.machine.tell(self.history.note)

    def _build_providers(self) -> None:
        """Who builds providers, and keeps them in step with the settings."""
        self.builder = ProviderBuilder(
            clock=self.clock,
            table=self.table,
            directories=self.directories,
            base_dir=self.store.path.parent,
            on_crash=self._on_crash,
            secret=self.secrets.get,
            vram_multiplier=lambda: self.settings.models.vram_multiplier,
        )
        self.providers = ProviderSet(
            self.fleet, self.builder.build, self.builder.build_demo, self.builder.is_ollama_there
        )

    def _build_downloads(self) -> None:
        """Who fetches models, while no game runs."""
        self.downloads = Downloads(
            self.fleet,
            self.clock,
            self.activity.record,
            DownloadBook(self.directories.downloads_file, write_atomically),
            DiskGuard(self._host.disk, lambda: self._models_folder.own),
            lambda: self.cpu_yield.is_yielding,
        )
        self.declared = DeclaredModels(self.fleet, self.downloads, lambda: self.settings)
        self.activity.tell(self.declared.note)

    def _build_desks(self) -> Desks:
        """What the control API asks for beside the valet itself."""
        self.setup = SetupDesk(
            self.store,
            self.secrets,
            self.secrets.get,
            lambda name: self.secrets.warm((name,), may_be_missing=True),
            self.directories.state_dir / "setup.key",
            write_atomically,
            lambda host, port: self.control.moved(host, port),
        )
        return Desks(
            store=StoreDesk(
                self.fleet,
                self.downloads,
                self.activity.record,
                lambda model, provider: self.valet.unload(model, provider=provider),
            ),
            setup=self.setup,
            settings=SettingsShown(self.store),
            secrets=self.secrets,
            checks=ProviderChecks(self.fleet, self.clock),
        )

    def _build_facade(self) -> None:
        """The picture that all edges show, and the commands that all edges give."""
        picture = Picture(
            clock=self.clock,
            settings=lambda: self.settings,
            settings_problem=lambda: str(self.store.problem) if self.store.problem else None,
            holds=self.holds,
            fleet=self.fleet,
            games=self.games,
            watchdog=self.watchdog,
            evictor=self.evictor,
            restorer=self.restorer,
            journal=self.journal,
            machine=self.machine,
            pressure=self.pressure,
            leases=self.leases,
            addresses=self.addresses,
            downloads=self.downloads.all,
        )
        self._build_desk()
        self.valet = ValetService(
            clock=self.clock,
            table=self.table,
            settings=self.store,
            activity=self.activity,
            holds=self.holds,
            fleet=self.fleet,
            loader=self.loader,
            dispatcher=self.dispatcher,
            leases=self.leases,
            games=self.games,
            machine=self.machine,
            journal=self.journal,
            watchdog=self.watchdog,
            picture=picture,
            desk=self.desk,
            traffic=self.traffic,
            tally=self.tally,
            request_log=self.request_log,
            ledger=self.ledger,
            history=self.history,
            quit_requested=self.quit_requested,
            own_log=lambda: log_tail(log_path(self.directories.log_file, self.settings.log.file)),
        )

        self.balloons = TrayBalloons()
        self.notifier = NotifierService(
            self.valet,
            system_notifier(self._system, os.environ, self.balloons),
            self.clock,
            self._keep_running,
        )

    def _build_desk(self) -> None:
        """Who starts and stops the providers' own servers."""
        log_file = self.directories.log_file.with_name("ollama-serve.log")
        services = ServiceAdapters(self._system, self.table, os.environ, log_file)
        self.desk = ServiceDesk(
            self.fleet,
            self.clock,
            self.activity.record,
            ServerEnd(self.table, self.clock),
            RunnerService(
                self.fleet, self.loader, self.clock, lambda provider: self.valet.unload(provider=provider)
            ),
            service_of=services.service_of,
            is_ollama_sought=lambda: self.settings.providers is None,
            finds_ollama=self._finds_ollama,
        )

    async def _finds_ollama(self) -> bool:
        if not await self.builder.is_ollama_there():
            return False
        await self.providers.apply(self.settings)
        return True

    def _build_servers(self) -> None:
        control, router = self.settings.control, self.settings.router
        self.window_codes = WindowCodes(self.clock)
        self.window = WindowOpener(
            self._window_page,
            scratch_dir=self.directories.state_dir / "window",
            say=lambda text: _LOG.warning("%s", text),
        )
        self.control_api = ControlApi(
            self.valet,
            clock=self.clock,
            codes=self.window_codes,
            table=self.table,
            open_window=self.window.open,
            desks=self._build_desks(),
            router=lambda: self.router_api if self.router in self.servers else None,
        )
        self.control = WebServer(
            Guard(
                self.control_api,
                policy=lambda: control_policy(self.settings),
                keys=ControlKeys(
                    lambda: self.settings,
                    token=lambda: self.token,
                    resolve_secret=self.secrets.get,
                    is_window_token=self.window_codes.accepts,
                ),
            ),
            name="control",
            host=control.host,
            port=control.port,
            on_stopping=self.control_api.end_streams,
            who_listens=self._who_listens,
        )
        self.router_api = RouterApi(self.valet, resident_bytes=self._resident_bytes)
        self.router = WebServer(
            Guard(
                self.router_api,
                policy=lambda: router_policy(self.settings),
                keys=RouterKeys(lambda: self.settings, resolve_secret=self.secrets.get),
                shape=answer_at,
                shape_unexpected=unexpected_at,
            ),
            name="router",
            host=router.host,
            port=router.port,
            on_stopping=self.router_api.end_streams,
            who_listens=self._who_listens,
        )
        self.servers = [self.control, *([self.router] if router.enabled else [])]

    # -- what the services tell each other -----------------------------------------------------------

    def _on_crash(self, crash: Crash) -> None:
        self.fleet.note_gone(crash.ref)
        self.revival.note_crash(crash)
        self.fleet.look_soon()

    def _on_holds_change(self) -> None:
        self.cpu_yield.look()
        self.dispatcher.gate_changed()
        self.watchdog.wake()
        self.downloads.look_soon()

    def _on_fleet_change(self) -> None:
        self.cpu_yield.look()
        self.fleet_changed.set()
        self.dispatcher.fleet_changed()
        self.declared.fleet_changed()
        self.watchdog.wake()
        self.pressure.look_soon()

    def _on_state_change(self) -> None:
        self.dispatcher.gate_changed()
        self.fleet.look_soon()

    def _window_page(self) -> WindowPage:
        is_dark = self.settings.desktop.appearance is Appearance.DARK
        return WindowPage(
            url=f"{self.control.url}/ui/",
            code=self.window_codes.new_code(),
            is_code_needed=self.settings.control.local_access is LocalAccess.TOKEN,
            background=_DARK_GROUND if is_dark else _LIGHT_GROUND,
        )

    def _keep_running(self, hold_ids: frozenset[str]) -> None:
        self.holds.override(hold_ids)
        if not self.holds.in_effect:
            self.watchdog.resume_anyway()

    def _who_listens(self, port: int) -> str | None:
        found = self.table.listening_on(port)
        process = self.table.describe(found.pid) if found else None
        return (
            f"{os.path.basename(process.exe) or 'a program'} (PID {process.identity.pid})"
            if process
            else None
        )

    def _resident_bytes(self) -> int | None:
        me = self.table.describe(os.getpid())
        return self.table.usage([me.identity]).resident_bytes if me is not None else None

    def look_every_s(self) -> float:
        is_calm = self.watchdog.state in (State.RUNNING, State.PROVIDER_DOWN)
        interval_s = float(self.settings.thresholds.check_interval_seconds)
        return interval_s if is_calm else min(_BUSY_LOOK_S, interval_s)
