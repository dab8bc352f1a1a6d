"""Secrets: keys by name, from the system's keyring, else from a file that only the user can read.

Decides: when a secret is looked up, and that a changed one is in force at once.
Must not: log, return or show one to anybody but the code that sends it. The keyring may ask the user and
take its time: it is read in a worker thread, ahead of need.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from tray_valet.core.errors import NotFound, SettingsUnwritable
from tray_valet.desktop.secret_keeper import SecretKeeper

_LOG = logging.getLogger(__name__)


class Secrets:
    """Looks secrets up once and keeps them in memory. `file` is the 0600 fallback."""

    def __init__(self, file: Path, *, keyring_timeout_s: float = 10.0) -> None:
        self._file = file
        self._keeper = SecretKeeper(file, keyring_timeout_s=keyring_timeout_s)
        self._known: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        """The secret of that name, if `warm` found it."""
        return self._known.get(name)

    async def warm(self, names: Iterable[str], *, may_be_missing: bool = False) -> None:
        """Look these secrets up; one that is nowhere stays unknown, and is said unless it may be missing."""
        wanted = sorted({name for name in names if name not in self._known})
        if not wanted:
            return
        found = await asyncio.to_thread(self._keeper.read_all, wanted)  # bounded there
        self._known |= found
        if may_be_missing:
            return
        for name in wanted:
            if name not in found:
                _LOG.warning("The secret keyring:%s is neither in the keyring nor in %s", name, self._file)

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
