"""The composition root: every object is built here, by hand, and handed what it needs.

Decides: who knows whom, and the order of the start and of the end. Must not: hold rules of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tray_valet import __version__
from tray_valet.adapters.machine import LibraryScanners, gpu_sensor, host_sensor
from tray_valet.adapters.processes import ProcessAdapters
from tray_valet.adapters.providers import ProviderBuilder, secret_names
from tray_valet.core import events as ev
from tray_valet.core.config import Settings
from tray_valet.core.errors import ValetError
from tray_valet.core.watchdog import State
from tray_valet.desktop.log_files import start_log
from tray_valet.desktop.paths import Directories, config_file_of, directories_of
from tray_valet.desktop.secrets import Secrets
from tray_valet.desktop.single_instance import InstanceLock
from tray_valet.desktop.system import current_system, refuse_root
from tray_valet.services.activity import Activity
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.clock import SystemClock
from tray_valet.services.dispatcher import Dispatcher
from tray_valet.services.evictor import Evictor
from tray_valet.services.fleet import Fleet
from tray_valet.services.game_watch import GameWatch
from tray_valet.services.hold_book import HoldBook
from tray_valet.services.idle import IdleUnloader
from tray_valet.services.journal_book import JournalBook, hold_from
from tray_valet.services.loader import Loader
from tray_valet.services.machine import Machine
from tray_valet.services.memory_probe import MemoryProbe
from tray_valet.services.picture import Addresses, Picture
from tray_valet.services.preload import preload
from tray_valet.services.pressure_watch import PressureWatch
from tray_valet.services.provider_set import ProviderSet
from tray_valet.services.restorer import Restorer
from tray_valet.services.settings import SettingsStore
from tray_valet.services.valet import ValetService
from tray_valet.services.watchdog import Watchdog
from tray_valet.web.control_api import ControlApi
from tray_valet.web.guard import Guard
from tray_valet.web.keys import ControlKeys, RouterKeys
from tray_valet.web.policies import control_policy, router_policy
from tray_valet.web.router_api import RouterApi
from tray_valet.web.server import WebServer

_LOG = logging.getLogger(__name__)
_BUSY_LOOK_S = 2.0  # how often providers are looked at while something is to be set aside or brought back
_RESTART_S = 1.0


class App:
    """All objects of a running valet. Build and use it on the loop."""

    def __init__(self, directories: Directories, settings: SettingsStore) -> None:
        self.directories = directories
        self.store = settings
        self.quit_requested = asyncio.Event()
        self._fleet_changed = asyncio.Event()
        self.addresses = Addresses()
        self.token = secrets.token_urlsafe(32)
        self.secrets = Secrets(directories.secrets_file)
        self._build_services()
        self._build_servers()

    @property
    def settings(self) -> Settings:
        return self.store.current

    def _build_services(self) -> None:
        clock, system = SystemClock(), current_system()
        processes = ProcessAdapters(system)
        self.table = processes.table
        self.activity = Activity(clock)
        record = self.activity.record
        self.holds = HoldBook(clock, processes.table, record, lambda: self.watchdog.wake())
        self.fleet = Fleet(clock, record, self._on_fleet_change)
        self.journal = JournalBook(self.directories.journal_file, clock, write_atomically)
        gpus = gpu_sensor(clock)
        self.machine = Machine(host_sensor(clock), gpus, clock, self._models_dir)
        self.dispatcher = Dispatcher(
            self.fleet,
            clock,
            lambda: self.settings,
            lambda needs_gpu: self.watchdog.closed_by(needs_gpu),
            lambda ref: self.restorer.request_for(ref),
        )
        self.loader = Loader(
            self.fleet,
            clock,
            record,
            lambda: self.settings.models,
            lambda ref: bool(self.dispatcher.in_flight(ref)),
        )
        self.dispatcher.loader = self.loader
        self.evictor = Evictor(
            self.fleet,
            self.dispatcher,
            self.loader,
            self.journal,
            MemoryProbe(processes.table, gpus),
            clock,
            record,
            lambda: self.settings.eviction,
        )
        self.restorer = Restorer(self.fleet, self.loader, self.journal, clock, record)
        self.watchdog = Watchdog(
            clock,
            self.holds,
            self.fleet,
            self.evictor,
            self.restorer,
            record,
            lambda: self.machine.latest,
            self._on_state_change,
        )
        scanners = LibraryScanners(system, lambda: self.settings.games)
        self.games = GameWatch(
            processes.watch,
            processes.table,
            scanners.current,
            system,
            self.holds,
            clock,
            record,
            lambda: self.settings.games,
        )
        self.pressure = PressureWatch(
            self.machine, processes.table, self.fleet, self.holds, clock, lambda: self.settings.thresholds
        )
        self.idle = IdleUnloader(
            self.fleet,
            self.loader,
            self.dispatcher,
            record,
            lambda: float(self.settings.models.idle_timeout_seconds),
        )
        self.builder = ProviderBuilder(
            clock=clock,
            table=processes.table,
            directories=self.directories,
            base_dir=self.store.path.parent,
            record=record,
            on_crash=self.fleet.look_soon,
        )
        self.providers = ProviderSet(
            self.fleet, self.builder.build, self.builder.build_demo, self.builder.is_ollama_there
        )
        picture = Picture(
            clock=clock,
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
            dispatcher=self.dispatcher,
            addresses=self.addresses,
        )
        self.valet = ValetService(
            clock=clock,
            table=processes.table,
            settings=self.store,
            activity=self.activity,
            holds=self.holds,
            fleet=self.fleet,
            loader=self.loader,
            dispatcher=self.dispatcher,
            games=self.games,
            machine=self.machine,
            journal=self.journal,
            watchdog=self.watchdog,
            picture=picture,
            models_dir=self._models_dir,
            quit_requested=self.quit_requested,
        )
        self.clock = clock

    def _build_servers(self) -> None:
        control, router = self.settings.control, self.settings.router
        self.control_api = ControlApi(self.valet, clock=self.clock)
        self.control = WebServer(
            Guard(
                self.control_api,
                policy=lambda: control_policy(self.settings),
                keys=ControlKeys(
                    lambda: self.settings, token=lambda: self.token, resolve_secret=self.secrets.get
                ),
            ),
            name="control",
            host=control.host,
            port=control.port,
            on_stopping=self.control_api.end_streams,
            who_listens=self._who_listens,
        )
        self.router_api = RouterApi(self.valet)
        self.router = WebServer(
            Guard(
                self.router_api,
                policy=lambda: router_policy(self.settings),
                keys=RouterKeys(lambda: self.settings, resolve_secret=self.secrets.get),
            ),
            name="router",
            host=router.host,
            port=router.port,
            on_stopping=self.router_api.end_streams,
            who_listens=self._who_listens,
        )
        self.servers = [self.control, *([self.router] if router.enabled else [])]

    # -- what the services tell each other -----------------------------------------------------------

    def _on_fleet_change(self) -> None:
        self._fleet_changed.set()
        self.watchdog.wake()
        self.pressure.look_soon()

    def _on_state_change(self) -> None:
        self.dispatcher.gate_changed()
        self.fleet.look_soon()

    def _models_dir(self) -> str:
        return str(self.directories.models_dir)

    def _who_listens(self, port: int) -> str | None:
        found = self.table.listening_on(port)
        process = self.table.describe(found.pid) if found else None
        return (
            f"{os.path.basename(process.exe) or 'a program'} (PID {process.identity.pid})"
            if process
            else None
        )

    def _look_every_s(self) -> float:
        is_calm = self.watchdog.state in (State.RUNNING, State.PROVIDER_DOWN)
        interval_s = float(self.settings.thresholds.check_interval_seconds)
        return interval_s if is_calm else min(_BUSY_LOOK_S, interval_s)

    # -- the life of it ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start everything, serve until `quit_requested`, end everything within 5 s."""
        await self._start()
        tasks = [self._guarded(name, work) for name, work in self._loops().items()]
        try:
            await self.quit_requested.wait()
        finally:
            await self._end(tasks)

    async def _start(self) -> None:
        self.journal.read()
        await self.builder.records.end_leftovers(self.table, self.clock)
        await asyncio.gather(
            self.secrets.warm(secret_names(self.settings)),
            self.providers.apply(self.settings),
            self.machine.sample(),
            self.games.prepare(),
        )
        await self.fleet.refresh()
        now_s, wall_s = self.clock.monotonic_s(), self.clock.wall_s()
        for kept in self.journal.journal.holds:
            self.holds.place(hold_from(kept, now_s, wall_s))
        missing = tuple(entry.model for entry in self.journal.missing)
        self.activity.record(
            ev.ValetStarted(
                version=__version__,
                interrupted_models=missing,
                was_paused=bool(self.journal.journal.set_aside),
            )
        )
        await asyncio.gather(*(server.start() for server in self.servers))
        self.addresses.control_url = self.control.url
        self.addresses.router_url = self.router.url if self.router in self.servers else None
        self._write_runtime_file()

    def _loops(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        return {
            "watchdog": self.watchdog.run,
            "holds": self.holds.run,
            "fleet": lambda: self.fleet.run(self._look_every_s),
            "games": self.games.run,
            "pressure": self.pressure.run,
            "idle": self.idle.run,
            "residents": self._note_residents,
            "providers": self.providers.run,
            "settings": lambda: self.store.watch(self._on_settings),
            "preload": self._preload,
        }

    async def _preload(self) -> None:
        await preload(self.fleet, self.loader, self.watchdog, lambda: self.settings.models.preload)

    def _guarded(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def guard() -> None:
            while True:
                try:
                    await work()
                    return
                except Exception:  # noqa: BLE001  # a task guard
                    _LOG.exception("The %s loop failed and is started again", name)
                    await asyncio.sleep(_RESTART_S)

        return asyncio.create_task(guard(), name=name)

    async def _on_settings(self, settings: Settings) -> None:
        if self.store.problem is not None:
            self.activity.record(ev.SettingsBroken(message=str(self.store.problem)))
            return
        await self.secrets.warm(secret_names(settings))
        await self.providers.apply(settings)
        await self.games.apply_settings()
        self.activity.record(ev.SettingsApplied())
        self.fleet.look_soon()
        self.pressure.look_soon()
        self.watchdog.wake()

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        """Refuse → end streams → stop own children → servers → loop."""
        self.activity.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(server.stop(grace_s=1.0) for server in self.servers))
        await asyncio.wait(tasks, timeout=1)
        await asyncio.gather(self.fleet.close(), self.router_api.close())
        await self.journal.close()
        self.directories.runtime_file.unlink(missing_ok=True)

    async def _note_residents(self) -> None:
        while True:
            self._fleet_changed.clear()
            await self.restorer.note_residents()
            await self._fleet_changed.wait()

    def _write_runtime_file(self) -> None:
        """Tell the user's own commands who runs where; 0600, since the token is in it."""
        me = self.table.describe(os.getpid())
        places: dict[str, Any] = {
            server_name: {"host": host, "port": server.port, "url": server.url}
            for server_name, server, host in (
                ("control", self.control, self.settings.control.host),
                ("router", self.router, self.settings.router.host),
            )
            if server in self.servers
        }
        text = json.dumps(
            {
                "pid": os.getpid(),
                "start_time": me.identity.start_time if me else 0,
                **places,
                "token": self.token,
                "version": __version__,
            }
        )
        write_atomically(self.directories.runtime_file, text.encode())


def run_services(
    *, config_path: str | None = None, is_root_allowed: bool = False, is_verbose: bool = False
) -> int:
    """Run the services in this thread until SIGTERM, Ctrl-C or a quit command; returns the exit code.

    Raises RootRefused, AlreadyRunning, AddressInUse, OSError.
    """
    refuse_root(is_allowed=is_root_allowed or os.environ.get("TRAY_VALET_ALLOW_ROOT") == "1")
    directories = directories_of(os.environ)
    directories.make()
    lock = InstanceLock(directories.state_dir / "lock")
    lock.acquire()
    try:
        store = SettingsStore(
            config_file_of(directories, os.environ, config_path),
            os.environ,
            last_good_file=directories.last_good_config_file,
        )
        settings = store.load()
        start_log(
            directories.log_file, settings.log.level.value, file=settings.log.file, is_terminal=is_verbose
        )
        asyncio.run(_serve(directories, store))
    finally:
        lock.release()
    return 0


async def _serve(directories: Directories, store: SettingsStore) -> None:
    app = App(directories, store)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, app.quit_requested.set)
        except NotImplementedError:  # Windows: the loop cannot; the handler may only set the event
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(app.quit_requested.set))
    try:
        await app.run()
    except ValetError:
        await app.fleet.close()
        raise
