"""The life of a valet: the order of the start, the loops that run, the order of the end.

Decides: what comes before what. Must not: build objects (`wiring.py` does).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tray_valet import __version__
from tray_valet.adapters.providers import secret_names
from tray_valet.core import events as ev
from tray_valet.core.config import Settings
from tray_valet.core.thresholds import is_overcommitted
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.journal_book import hold_from
from tray_valet.services.preload import preload
from tray_valet.wiring import Wiring

_LOG = logging.getLogger(__name__)
_RESTART_S = 1.0


class Lifecycle:
    """Runs what the wiring has built, and `more_loops` beside it, by name."""

    def __init__(
        self, valet: Wiring, more_loops: Mapping[str, Callable[[], Awaitable[None]]] | None = None
    ) -> None:
        self._valet = valet
        self._ground = valet.ground
        self._servers = valet.servers
        self._more_loops = more_loops or {}
        self._settings_at_start = self._applied = self._ground.settings
        self._said_problem = ""
        self._servers.setup.on_moved = self._on_moved

    async def run(self) -> None:
        """Start everything, serve until `quit_requested`, end everything within 5 s."""
        await self._start()
        tasks = [self._guarded(name, work) for name, work in self._loops().items()]
        try:
            await self._valet.quit_requested.wait()
        finally:
            await self._end(tasks)

    async def _start(self) -> None:
        self._ground.journal.read()
        self._valet.downloads.read()
        self._ground.ledger.read()
        # An orderly end takes the runtime file away.
        was_interrupted = (
            self._ground.journal.was_interrupted or self._ground.directories.runtime_file.exists()
        )
        await self._valet.builder.records.end_leftovers(self._ground.table, self._ground.clock)
        await asyncio.gather(
            self._ground.secrets.warm(secret_names(self._ground.settings)),
            self._servers.setup.prepare(),
            self._valet.providers.apply(self._ground.settings),
            self._ground.machine.sample(),
            self._valet.games.prepare(),
        )
        await self._ground.fleet.refresh()
        now_s, wall_s = self._ground.clock.monotonic_s(), self._ground.clock.wall_s()
        for kept in self._ground.journal.journal.holds:
            hold = hold_from(kept, now_s, wall_s)
            if hold.expires_at_s is None or hold.expires_at_s > now_s:
                self._ground.holds.place(hold)
        missing = tuple(entry.model for entry in self._ground.journal.missing)
        self._record_at_start(
            ev.ValetStarted(
                version=__version__,
                interrupted_models=missing if was_interrupted else (),
                was_interrupted=was_interrupted,
                was_paused=self._ground.journal.was_paused,
            )
        )
        self._record_overcommitted()
        if self._ground.store.problem is not None:
            self._said_problem = str(self._ground.store.problem)
            self._record_at_start(ev.SettingsBroken(message=self._said_problem))
        await asyncio.gather(*(server.start() for server in self._servers.enabled))
        self._valet.addresses.control_url = self._servers.control.url
        self._valet.addresses.router_url = (
            self._servers.router.url if self._servers.router in self._servers.enabled else None
        )
        self._write_runtime_file()

    def _record_overcommitted(self) -> None:
        """Say which models that were loaded before us leave too little room, as /status does all along."""
        sample, thresholds = self._ground.machine.latest, self._ground.settings.thresholds
        total_bytes = sample.host.ram_total_bytes if sample else 0
        for slot, model in self._ground.fleet.residents():
            if is_overcommitted(model.size_bytes, total_bytes, thresholds):
                fact = ev.Overcommitted(
                    provider=slot.name,
                    model=model.name,
                    size_bytes=model.size_bytes,
                    limit_pct=thresholds.ram_pause_pct,
                    total_bytes=total_bytes,
                )
                self._record_at_start(fact)

    def _record_at_start(self, fact: ev.Fact) -> None:
        """The notifier does not follow the activity yet."""
        self._ground.record(fact)
        self._valet.notifier.note(fact)

    def _loops(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        return {
            "watchdog": self._valet.watchdog.run,
            "holds": self._ground.holds.run,
            "fleet": lambda: self._ground.fleet.run(self._valet.look_every_s),
            "games": self._valet.games.run,
            "pressure": self._valet.pressure.run,
            "pressure notices": lambda: self._valet.pressure_notices.run(self._valet.pressure.look_soon),
            "idle": self._valet.idle.run,
            "downloads": self._valet.downloads.run,
            "declared models": self._valet.declared.run,
            "models folder": self._ground.models_folder.find,
            "residents": self._note_residents,
            "providers": self._valet.providers.run,
            "settings": lambda: self._ground.store.watch(self._on_settings),
            "preload": self._preload,
            "notices": self._valet.notifier.run,
            "request log": self._ground.request_log.run,
            "ledger": self._ground.ledger.run,
            "reload fights": self._valet.fights.run,
            "autostart": lambda: self._valet.autostart.apply(self._ground.settings.desktop.autostart),
            **self._more_loops,
        }

    async def _preload(self) -> None:
        await preload(
            self._ground.fleet,
            self._valet.loader,
            self._valet.watchdog,
            lambda: self._ground.settings.models.preload,
        )

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
        problem = str(self._ground.store.problem or "")
        if problem and problem != self._said_problem:
            self._ground.record(ev.SettingsBroken(message=problem))
        self._said_problem = problem
        if settings == self._applied:
            return
        self._applied = settings
        await self._ground.secrets.warm(secret_names(settings))
        await self._valet.providers.apply(settings)
        self._valet.declared.settings_changed()
        await self._valet.games.apply_settings()
        await self._ground.models_folder.find()
        await self._valet.autostart.apply(settings.desktop.autostart)
        self._ground.record(ev.SettingsApplied())
        if paths := self._changed_addresses(settings):
            self._ground.record(ev.RestartNeeded(paths=paths))
        self._ground.fleet.look_soon()
        self._valet.pressure.look_soon()
        self._valet.watchdog.wake()

    async def _on_moved(self) -> None:
        """The control API listens elsewhere: tell whoever looks for it."""
        self._valet.addresses.control_url = self._servers.control.url
        await asyncio.to_thread(self._write_runtime_file)

    def _changed_addresses(self, settings: Settings) -> tuple[str, ...]:
        old = self._settings_at_start
        asked = (settings.control.host, settings.control.port)
        control = asked if self._servers.setup.is_moving else self._servers.control.asked
        pairs = (
            ("control.host", control[0], settings.control.host),
            ("control.port", control[1], settings.control.port),
            ("router.host", old.router.host, settings.router.host),
            ("router.port", old.router.port, settings.router.port),
            ("router.enabled", old.router.enabled, settings.router.enabled),
        )
        return tuple(path for path, before, now in pairs if before != now)

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        """Refuse → end streams → stop own children → servers → loop."""
        self._ground.activity.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(server.stop(grace_s=1.0) for server in self._servers.enabled))
        await asyncio.wait(tasks, timeout=1)
        await self._ground.request_log.close()  # the last answers have ended
        await self._valet.desk.close()
        await self._valet.revival.close()
        await asyncio.gather(
            self._servers.window.close(), self._ground.fleet.close(), self._servers.router_api.close()
        )
        await self._ground.journal.close()
        await self._ground.ledger.close()
        self._ground.directories.runtime_file.unlink(missing_ok=True)

    async def _note_residents(self) -> None:
        while True:
            self._valet.fleet_changed.clear()
            await self._valet.restorer.note_residents()
            await self._valet.fleet_changed.wait()

    def _write_runtime_file(self) -> None:
        """Tell the user's own commands who runs where; 0600, since the token is in it."""
        me = self._ground.table.describe(os.getpid())
        places: dict[str, Any] = {
            server_name: {"host": host, "port": server.port, "url": server.url}
            for server_name, server, host in (
                ("control", self._servers.control, self._ground.settings.control.host),
                ("router", self._servers.router, self._ground.settings.router.host),
            )
            if server in self._servers.enabled
        }
        text = json.dumps(
            {
                "pid": os.getpid(),
                "start_time": me.identity.start_time if me else 0,
                **places,
                "token": self._servers.token,
                "version": __version__,
            }
        )
        write_atomically(self._ground.directories.runtime_file, text.encode())
