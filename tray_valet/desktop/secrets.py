"""Secrets: keys by name, from the system's keyring, else from a file that only the user can read.

Decides: where a secret is looked up, and that a changed one is in force at once.
Must not: log, return or show one to anybody but the code that
sends it. The keyring may ask the user and take its time: it is read in a worker thread, ahead of need.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from tray_valet.core.errors import NotFound, SettingsUnwritable
from tray_valet.desktop.secret_keeper import SecretKeeper

_LOG = logging.getLogger(__name__)
_SERVICE = "tray-valet"
_TIMEOUT_S = 10.0


class Secrets:
    """Looks secrets up once and keeps them in memory. `file` is the 0600 fallback."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._keeper = SecretKeeper(file)
        self._known: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        """The secret of that name, if `warm` found it."""
        return self._known.get(name)

    async def warm(self, names: Iterable[str], *, may_be_missing: bool = False) -> None:
        """Look these secrets up; one that is nowhere stays unknown, and is said unless it may be missing."""
        for name in {n for n in names if n not in self._known}:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    found = await asyncio.to_thread(self._look_up, name)
            except TimeoutError:
                _LOG.warning("The keyring did not answer in %.0f s", _TIMEOUT_S)
                return
            if found is None and not may_be_missing:
                _LOG.warning("The secret keyring:%s is neither in the keyring nor in %s", name, self._file)
            elif found is not None:
                self._known[name] = found

    async def keep(self, name: str, value: str) -> None:
        """Store a secret, in force at once. Raises SettingsUnwritable."""
        await self._write(lambda: self._keeper.keep(name, value))
        self._known[name] = value

    async def forget(self, name: str) -> None:
        """Take a secret away. Raises NotFound where there is none, SettingsUnwritable."""
        if name not in self._known and await asyncio.to_thread(self._keeper.read, name) is None:
            raise NotFound(f"There is no secret “{name}”.", param="name")
        await self._write(lambda: self._keeper.forget(name))
        self._known.pop(name, None)

    async def _write(self, write: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(write)
        except OSError as error:
            raise SettingsUnwritable(
                f"Not saved: {self._file} cannot be written ({error.strerror or error}).",
                remedy="Look at the disk's free space and at who owns the folder.",
            ) from error

    def _look_up(self, name: str) -> str | None:
        return self._in_keyring(name) or self._in_file(name)

    def _in_keyring(self, name: str) -> str | None:
        try:
            import keyring
            import keyring.errors
        except ImportError:
            return None
        try:
            return keyring.get_password(_SERVICE, name)
        except (keyring.errors.KeyringError, RuntimeError, OSError) as error:
            _LOG.debug("No keyring to ask: %s", error)
            return None

    def _in_file(self, name: str) -> str | None:
        try:
            stored = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        value = stored.get(name) if isinstance(stored, dict) else None
        return value if isinstance(value, str) else None
