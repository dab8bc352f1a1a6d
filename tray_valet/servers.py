"""The servers: both APIs, what the control API asks for beside the valet, and the window on its page.

Decides: who of them knows whom. Must not: start anything (`lifecycle.py` does) or hold rules of its own.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable

from tray_valet.core.config import Appearance, LocalAccess, Settings
from tray_valet.core.desks import Desks
from tray_valet.desktop.window_opener import WindowOpener, WindowPage
from tray_valet.ground import Ground
from tray_valet.services.atomic_file import write_atomically
from tray_valet.services.downloads import Downloads
from tray_valet.services.model_store import StoreDesk
from tray_valet.services.provider_checks import ProviderChecks
from tray_valet.services.settings_desk import SettingsShown
from tray_valet.services.setup import SetupDesk
from tray_valet.services.valet import ValetService
from tray_valet.web.control.api import ControlApi
from tray_valet.web.control.window_codes import WindowCodes
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import ControlKeys, RouterKeys
from tray_valet.web.edge.policies import as_settings_are, control_policy, router_policy
from tray_valet.web.edge.server import WebServer
from tray_valet.web.relay.dialect_errors import answer_at, unexpected_at
from tray_valet.web.router.api import RouterApi

_LOG = logging.getLogger(__name__)
_LIGHT_GROUND, _DARK_GROUND = "#f5f6f8", "#16181c"  # the page's own, so that nothing flashes before it


class Servers:
    """`enabled` are those that the settings want. Build and use it on the loop."""

    def __init__(self, ground: Ground, valet: ValetService, downloads: Downloads) -> None:
        self._ground = ground
        self.token = secrets.token_urlsafe(32)
        self._window_codes = WindowCodes(ground.clock)
        self.window = WindowOpener(
            self._window_page,
            scratch_dir=ground.directories.state_dir / "window",
            say=lambda text: _LOG.warning("%s", text),
        )
        self.setup = SetupDesk(
            ground.store,
            ground.secrets,
            ground.secrets.get,
            lambda name: ground.secrets.warm((name,), may_be_missing=True),
            ground.directories.state_dir / "setup.key",
            write_atomically,
            lambda host, port: self.control.moved(host, port),
        )
        self.control = self._control_server(valet, self._desks(valet, downloads))
        self.router_api = RouterApi(valet, resident_bytes=self._resident_bytes)
        self.router = self._router_server()
        self.enabled = [self.control, *([self.router] if ground.settings.router.enabled else [])]

    def _desks(self, valet: ValetService, downloads: Downloads) -> Desks:
        ground = self._ground
        return Desks(
            store=StoreDesk(
                ground.fleet,
                downloads,
                ground.record,
                lambda model, provider: valet.unload(model, provider=provider),
            ),
            setup=self.setup,
            settings=SettingsShown(ground.store),
            secrets=ground.secrets,
            checks=ProviderChecks(ground.fleet, ground.clock),
        )

    def _control_server(self, valet: ValetService, desks: Desks) -> WebServer:
        ground = self._ground
        api = ControlApi(
            valet,
            clock=ground.clock,
            codes=self._window_codes,
            table=ground.table,
            open_window=self.window.open,
            desks=desks,
            router=lambda: self.router_api if self.router in self.enabled else None,
        )
        settings = _settings_of(ground)
        keys = ControlKeys(
            settings,
            token=lambda: self.token,
            resolve_secret=ground.secrets.get,
            is_window_token=self._window_codes.accepts,
        )
        return WebServer(
            Guard(api, policy=as_settings_are(control_policy, settings), keys=keys),
            name="control",
            host=ground.settings.control.host,
            port=ground.settings.control.port,
            on_stopping=api.end_streams,
            who_listens=self._who_listens,
        )

    def _router_server(self) -> WebServer:
        ground = self._ground
        settings = _settings_of(ground)
        return WebServer(
            Guard(
                self.router_api,
                policy=as_settings_are(router_policy, settings),
                keys=RouterKeys(settings, resolve_secret=ground.secrets.get),
                shape=answer_at,
                shape_unexpected=unexpected_at,
            ),
            name="router",
            host=ground.settings.router.host,
            port=ground.settings.router.port,
            on_stopping=self.router_api.end_streams,
            who_listens=self._who_listens,
        )

    def _window_page(self) -> WindowPage:
        settings = self._ground.settings
        return WindowPage(
            url=f"{self.control.url}/ui/",
            code=self._window_codes.new_code(),
            is_code_needed=settings.control.local_access is LocalAccess.TOKEN,
            background=_DARK_GROUND if settings.desktop.appearance is Appearance.DARK else _LIGHT_GROUND,
        )

    def _who_listens(self, port: int) -> str | None:
        found = self._ground.table.listening_on(port)
        process = self._ground.table.describe(found.pid) if found else None
        return (
            f"{os.path.basename(process.exe) or 'a program'} (PID {process.identity.pid})"
            if process
            else None
        )

    def _resident_bytes(self) -> int | None:
        me = self._ground.table.describe(os.getpid())
        return self._ground.table.usage([me.identity]).resident_bytes if me is not None else None


def _settings_of(ground: Ground) -> Callable[[], Settings]:
    """The settings at a moment, by the shortest way: they are asked for with each request."""
    store = ground.store
    return lambda: store.current
