"""The wiring: every service is built here, by hand, and handed what it needs.

Decides: who knows whom; what all stand on is `ground.py`'s, what stands on them `servers.py`'s. Must not:
start anything (`lifecycle.py` does) or hold rules of its own.
"""

from __future__ import annotations

import asyncio
import os

from tray_valet.adapters.machine import LibraryScanners, pressure_notices
from tray_valet.adapters.notifications import system_notifier
from tray_valet.adapters.providers import ProviderBuilder
from tray_valet.adapters.services import ServiceAdapters
from tray_valet.core.revival import Crash, definition_of
from tray_valet.core.watchdog import State
from tray_valet.desktop.autostart import launch_command, system_autostart
from tray_valet.desktop.log_files import log_path, log_tail
from tray_valet.desktop.notify_tray import TrayBalloons
from tray_valet.desktop.paths import Directories
from tray_valet.desktop.system import is_root
from tray_valet.ground import Ground
from tray_valet.servers import Servers
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.autostart_wish import AutostartWish
from tray_valet.services.cpu_yield import CpuYield
from tray_valet.services.declared_models import DeclaredModels
from tray_valet.services.disk_guard import DiskGuard
from tray_valet.services.dispatcher import Dispatcher
from tray_valet.services.download_book import DownloadBook
from tray_valet.services.downloads import Downloads
from tray_valet.services.evictor import Evictor
from tray_valet.services.fit import Fit
from tray_valet.services.game_watch import GameWatch
from tray_valet.services.history import HistoryBook
from tray_valet.services.idle import IdleUnloader
from tray_valet.services.loader import Loader
from tray_valet.services.notifier import NotifierService
from tray_valet.services.picture import Addresses, Picture
from tray_valet.services.pressure_watch import PressureWatch
from tray_valet.services.provider_set import ProviderSet
from tray_valet.services.reload_fights import ReloadFights
from tray_valet.services.restorer import Restorer
from tray_valet.services.revival import Revival
from tray_valet.services.runner_service import RunnerService
from tray_valet.services.server_end import ServerEnd
from tray_valet.services.service_desk import ServiceDesk
from tray_valet.services.settings import SettingsStore
from tray_valet.services.valet import ValetService
from tray_valet.services.watchdog import Watchdog

_BUSY_LOOK_S = 2.0  # how often providers are looked at while something is to be set aside or brought back


class Wiring:
    """All objects of a valet. Build and use it on the loop."""

    def __init__(self, directories: Directories, settings: SettingsStore) -> None:
        self.ground = Ground(directories, settings, self._on_holds_change, self._on_fleet_change)
        self.quit_requested = asyncio.Event()
        self.fleet_changed = asyncio.Event()
        self.addresses = Addresses()
        self.autostart = AutostartWish(
            directories.autostart_file,
            system_autostart,
            lambda: launch_command(
                config_path=None if settings.path == directories.config_file else str(settings.path),
                is_root_allowed=is_root(),  # we run, so it is
            ),
        )
        self._build_loads()
        self._build_watchdog()
        self._build_watches()
        self._build_providers()
        self._build_downloads()
        self._build_facade()
        self.servers = Servers(self.ground, self.valet, self.downloads)

    def _build_loads(self) -> None:
        """Who brings models in on demand, and takes idle ones out."""
        ground = self.ground
        self.dispatcher = Dispatcher(
            ground.fleet,
            ground.clock,
            ground.leases,
            lambda: ground.store.current,
            lambda demand: self.watchdog.closed_by(demand),
            lambda ref: self.restorer.request_for(ref),
            lambda: self.cpu_yield.is_yielding,
        )
        self.cpu_yield = CpuYield(ground.fleet, lambda: ground.holds.in_effect)
        self.revival = Revival(
            ground.fleet,
            ground.clock,
            ground.record,
            lambda demand: self.watchdog.closed_by(demand),
            lambda ref: definition_of(ground.settings, ref),
            lambda slot, request: self.loader.ensure(slot, request),
        )
        self.loader = Loader(
            ground.fleet,
            ground.clock,
            ground.record,
            lambda: ground.settings.models,
            lambda ref: bool(ground.leases.count(ref)),
            lambda demand: self.watchdog.closed_by(demand),
            self.dispatcher.is_wanted,
            self.revival,
            Fit(
                ground.fleet,
                lambda: ground.machine.sample(0.0),
                ground.probe.with_vram,
                lambda: ground.settings.models,
            ),
        )
        self.dispatcher.loader = self.loader
        self.idle = IdleUnloader(
            ground.fleet,
            self.loader,
            ground.leases,
            ground.record,
            lambda: float(ground.settings.models.idle_timeout_seconds),
        )

    def _build_watchdog(self) -> None:
        """Who decides about a pause, and the two hands that act."""
        ground = self.ground
        self.evictor = Evictor(
            ground.fleet,
            ground.leases,
            self.loader,
            ground.journal,
            ground.probe,
            ground.clock,
            ground.record,
            lambda: ground.settings.eviction,
        )
        self.restorer = Restorer(ground.fleet, self.loader, ground.journal, ground.clock, ground.record)
        self.fights = ReloadFights(
            ground.fleet, ground.table, ground.clock, ground.record, lambda: self.addresses.router_url
        )
        self.watchdog = Watchdog(
            ground.clock,
            ground.holds,
            ground.fleet,
            self.evictor,
            self.restorer,
            self.fights,
            ground.record,
            lambda: ground.machine.latest,
            self._on_state_change,
        )

    def _build_watches(self) -> None:
        """Who sees games and pressure."""
        ground = self.ground
        scanners = LibraryScanners(ground.system, lambda: ground.settings.games)
        self.games = GameWatch(
            ground.process_watch,
            ground.table,
            scanners.current,
            ground.system,
            ground.holds,
            ground.clock,
            ground.record,
            lambda: ground.settings.games,
        )
        self.pressure = PressureWatch(
            ground.machine,
            ground.table,
            ground.fleet,
            ground.holds,
            ground.clock,
            lambda: ground.settings.thresholds,
        )
        self.pressure_notices = pressure_notices(ground.system)
        self.history = HistoryBook(ground.clock, lambda: self.pressure.signals, lambda: self.watchdog.state)
        ground.machine.tell(self.history.note)

    def _build_providers(self) -> None:
        """Who builds providers, and keeps them in step with the settings."""
        ground = self.ground
        self.builder = ProviderBuilder(
            clock=ground.clock,
            table=ground.table,
            directories=ground.directories,
            base_dir=ground.store.path.parent,
            on_crash=self._on_crash,
            secret=ground.secrets.get,
            vram_multiplier=lambda: ground.settings.models.vram_multiplier,
        )
        self.providers = ProviderSet(
            ground.fleet, self.builder.build, self.builder.build_demo, self.builder.is_ollama_there
        )

    def _build_downloads(self) -> None:
        """Who fetches models, while no game runs."""
        ground = self.ground
        self.downloads = Downloads(
            ground.fleet,
            ground.clock,
            ground.record,
            DownloadBook(ground.directories.downloads_file, write_atomically),
            DiskGuard(ground.host.disk, lambda: ground.models_folder.own),
            lambda: self.cpu_yield.is_yielding,
        )
        self.declared = DeclaredModels(ground.fleet, self.downloads, lambda: ground.settings)
        ground.activity.tell(self.declared.note)

    def _build_facade(self) -> None:
        """The picture that all edges show, and the commands that all edges give."""
        ground = self.ground
        picture = Picture(
            clock=ground.clock,
            settings=lambda: ground.settings,
            settings_problem=lambda: str(ground.store.problem) if ground.store.problem else None,
            holds=ground.holds,
            fleet=ground.fleet,
            games=self.games,
            watchdog=self.watchdog,
            evictor=self.evictor,
            restorer=self.restorer,
            journal=ground.journal,
            machine=ground.machine,
            pressure=self.pressure,
            leases=ground.leases,
            addresses=self.addresses,
            downloads=self.downloads.all,
        )
        self._build_desk()
        self.valet = ValetService(
            clock=ground.clock,
            table=ground.table,
            settings=ground.store,
            activity=ground.activity,
            holds=ground.holds,
            fleet=ground.fleet,
            loader=self.loader,
            dispatcher=self.dispatcher,
            leases=ground.leases,
            games=self.games,
            machine=ground.machine,
            journal=ground.journal,
            watchdog=self.watchdog,
            picture=picture,
            desk=self.desk,
            traffic=ground.traffic,
            tally=ground.tally,
            request_log=ground.request_log,
            ledger=ground.ledger,
            history=self.history,
            quit_requested=self.quit_requested,
            own_log=lambda: log_tail(log_path(ground.directories.log_file, ground.settings.log.file)),
        )
        self.balloons = TrayBalloons()
        self.notifier = NotifierService(
            self.valet,
            system_notifier(ground.system, os.environ, self.balloons),
            ground.clock,
            self._keep_running,
        )

    def _build_desk(self) -> None:
        """Who starts and stops the providers' own servers."""
        ground = self.ground
        log_file = ground.directories.log_file.with_name("ollama-serve.log")
        services = ServiceAdapters(ground.system, ground.table, os.environ, log_file)
        self.desk = ServiceDesk(
            ground.fleet,
            ground.clock,
            ground.record,
            ServerEnd(ground.table, ground.clock),
            RunnerService(
                ground.fleet, self.loader, ground.clock, lambda provider: self.valet.unload(provider=provider)
            ),
            service_of=services.service_of,
            is_ollama_sought=lambda: ground.settings.providers is None,
            finds_ollama=self._finds_ollama,
        )

    async def _finds_ollama(self) -> bool:
        if not await self.builder.is_ollama_there():
            return False
        await self.providers.apply(self.ground.settings)
        return True

    # -- what the services tell each other -----------------------------------------------------------

    def _on_crash(self, crash: Crash) -> None:
        self.ground.fleet.note_gone(crash.ref)
        self.revival.note_crash(crash)
        self.ground.fleet.look_soon()

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
        self.ground.fleet.look_soon()

    def _keep_running(self, hold_ids: frozenset[str]) -> None:
        self.ground.holds.override(hold_ids)
        if not self.ground.holds.in_effect:
            self.watchdog.resume_anyway()

    def look_every_s(self) -> float:
        is_calm = self.watchdog.state in (State.RUNNING, State.PROVIDER_DOWN)
        interval_s = float(self.ground.settings.thresholds.check_interval_seconds)
        return interval_s if is_calm else min(_BUSY_LOOK_S, interval_s)
