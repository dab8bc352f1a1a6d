"""The first set-up: the key for other machines, and the address of the control API.

Decides: when a key is made and shown, and in which order an address is changed so that a failure leaves
everything as it was. Must not: listen (the web server does), or show a key that it did not make.

A key is made when other machines are to be let in and there is none. It lies among the secrets, and its
fingerprint in `marker`, so that only this very key is ever shown, and only until it is acknowledged.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from tray_valet.core.addresses import is_host, is_loopback_host
from tray_valet.core.config import Settings
from tray_valet.core.desks import Applied, SecretStore, SetupState
from tray_valet.core.errors import InvalidValue, KeyNotAcknowledged, SettingsUnwritable
from tray_valet.services.settings import SettingsStore

_LOG = logging.getLogger(__name__)
KEY_NAME = "control"
_REFERENCE = f"keyring:{KEY_NAME}"
_FILE_LIMIT = 200

Rebind = Callable[[str, int | None], AbstractAsyncContextManager[str]]


class SetupDesk:
    """Implements `core.desks.Setup`.

    `rebind(host, port)` listens there (port None: the one it has) from the beginning of its block on and
    keeps the old address if the block raises; it gives the new url. `secret(name)` is a key that
    `look_up(name)` has found. `on_moved` is told once it has moved.
    """

    def __init__(
        self,
        store: SettingsStore,
        keys: SecretStore,
        secret: Callable[[str], str | None],
        look_up: Callable[[str], Awaitable[None]],
        marker: Path,
        write: Callable[[Path, bytes], None],
        rebind: Rebind,
    ) -> None:
        self._store = store
        self._keys = keys
        self._secret = secret
        self._look_up = look_up
        self._marker = marker
        self._write = write
        self._rebind = rebind
        self._lock = asyncio.Lock()
        self._fingerprint: str | None = None
        self.on_moved: Callable[[], Awaitable[None]] | None = None

    @property
    def is_moving(self) -> bool:
        """Whether an address is being changed at this moment."""
        return self._lock.locked()

    def state(self) -> SetupState:
        is_seen = self._store.current.control.key_acknowledged
        return SetupState(needs_setup=not is_seen, api_key=None if is_seen else self._made_key())

    async def acknowledge(self) -> None:
        async with self._lock:
            control = self._store.current.control
            change: dict[str, Any] = {"key_acknowledged": True}
            if control.api_key is None and self._made_key() is not None:
                change["api_key"] = _REFERENCE
            elif control.key_acknowledged:
                return
            await asyncio.to_thread(self._store.update, {"control": change})

    async def apply(self, host: str | None, port: int | None) -> Applied:
        async with self._lock:
            control = self._store.current.control
            wanted_host = control.host if host is None else self._checked_host(host)
            self._refuse_overridden(host, port)
            key = {} if is_loopback_host(wanted_host) else await self._required_key()
            change: dict[str, Any] = {"host": wanted_host, "key_acknowledged": True, **key}
            if port is not None:
                change["port"] = port
            async with self._rebind(wanted_host, port) as url:
                settings = await asyncio.to_thread(self._store.update, {"control": change})
            _LOG.info("The control API has moved to %s", url)
            if self.on_moved is not None:
                await self.on_moved()
            return Applied(url=url, host=settings.control.host, port=int(url.rpartition(":")[2]))

    # -- inside ----------------------------------------------------------------------------------------

    def _checked_host(self, host: str) -> str:
        if not is_host(host):
            raise InvalidValue(
                f"“{host[:60]}” is not an address.", remedy="Use 127.0.0.1 or 0.0.0.0.", param="host"
            )
        return host

    def _refuse_overridden(self, host: str | None, port: int | None) -> None:
        for name, value in (("host", host), ("port", port)):
            variable = self._store.overrides.get(f"control.{name}")
            if value is not None and variable is not None:
                raise InvalidValue(
                    f"The {name} is set by the environment variable {variable}, which would win again.",
                    remedy="Take the variable away first.",
                    param=name,
                )

    async def prepare(self) -> None:
        """Look up the key that waits to be acknowledged, if there is one; at the start."""
        if not self._store.current.control.key_acknowledged and self._marker.exists():
            await self._look_up(KEY_NAME)

    async def _required_key(self) -> dict[str, Any]:
        """What the settings need to say of the key. Raises unless there is one that the user knows; where
        there is none it is made."""
        settings = self._store.current
        if not self._has_key(settings):
            await self._look_up(KEY_NAME)
            is_users_own = self._secret(KEY_NAME) is not None and self._made_key() is None
            if is_users_own and settings.control.api_key is None:
                return {"api_key": _REFERENCE}
            await self._make_key()
            raise _not_seen()
        if not settings.control.key_acknowledged and self._made_key() is not None:
            raise _not_seen()
        return {}

    def _has_key(self, settings: Settings) -> bool:
        reference = settings.control.api_key
        if reference is None:
            return False
        return not reference.startswith("keyring:") or bool(self._secret(reference.removeprefix("keyring:")))

    async def _make_key(self) -> None:
        if self._made_key() is not None:
            return
        key = secrets.token_urlsafe(32)
        mark = _fingerprint(key)
        await self._keys.keep(KEY_NAME, key)
        try:
            await asyncio.to_thread(self._write, self._marker, mark.encode())
        except OSError as error:
            raise SettingsUnwritable(f"{self._marker} cannot be written ({error}).") from error
        self._fingerprint = mark

    def _made_key(self) -> str | None:
        """The key that was made here, if it is still the one among the secrets."""
        if self._fingerprint is None:
            try:
                with self._marker.open("rb") as file:
                    self._fingerprint = file.read(_FILE_LIMIT).decode("ascii", "replace")
            except OSError:
                self._fingerprint = ""
        key = self._secret(KEY_NAME)
        return key if key and self._fingerprint and _fingerprint(key) == self._fingerprint else None


def _fingerprint(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _not_seen() -> KeyNotAcknowledged:
    return KeyNotAcknowledged(
        "Other machines could reach Tray Valet there, so it asks them for an API key, which you have not "
        "noted yet.",
        remedy="Read it with GET /setup on this machine, POST /setup/acknowledge, and apply again.",
        param="host",
    )
