"""The ledger on disk: what is remembered of each game over restarts.

Decides: when it is written (some seconds after a change, at once when something is forgotten).
Must not: hold the rules (`core/ledger.py`, `core/ledger_fold.py`). Every write is whole;
a disk that takes no write is said once: the ledger is then in memory alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from tray_valet.core import events as ev
from tray_valet.core import ledger as rules
from tray_valet.core.errors import NotFound
from tray_valet.core.ledger import Ledger
from tray_valet.core.ledger_fold import Book, folded, forgotten
from tray_valet.core.ports import Clock
from tray_valet.services.kept_file import read_kept

_LOG = logging.getLogger(__name__)
_WRITE_AFTER_S = 3.0
_RETRY_S = 60.0


class LedgerBook:
    """Owns the ledger. `write` puts bytes at a path atomically and durably; it runs in a thread."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        write: Callable[[Path, bytes], None],
        *,
        write_after_s: float = _WRITE_AFTER_S,
    ) -> None:
        self._path = path
        self._clock = clock
        self._write = write
        self._write_after_s = write_after_s
        self._book = Book()
        self._saved = Ledger()
        self._is_said = False
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()

    @property
    def ledger(self) -> Ledger:
        """What is remembered now."""
        return self._book.ledger

    def read(self) -> None:
        """Read what earlier runs left."""
        ledger = read_kept(self._path, rules.decoded, "The ledger")
        if ledger is not None:
            self._book = msgspec.structs.replace(self._book, ledger=ledger)
            self._saved = ledger

    def note(self, fact: ev.Fact) -> None:
        """Take a fact in. Quick: it is called for every one."""
        before = self._book.ledger
        self._book = folded(self._book, fact, self._clock.monotonic_s(), self._clock.wall_s())
        if self._book.ledger is not before:
            self._changed.set()

    async def forget(self, game: str | None = None) -> int:
        """Forget one game (by key or name) or all; returns how many, on disk by then. Raises NotFound."""
        keys = None if game is None else rules.named(self.ledger, game)
        if game is not None and not keys:
            raise NotFound(f"The ledger knows no game called “{game[:80]}”.", param="game")
        count = len(self.ledger.games) if keys is None else len(keys)
        self._book = forgotten(self._book, keys)
        await self._save()
        return count

    async def run(self) -> None:
        """Write changes down, some seconds after the first of them, until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._write_after_s)
            self._changed.clear()
            if not await self._save():
                await asyncio.sleep(_RETRY_S)
                self._changed.set()

    async def close(self) -> None:
        """Write what has changed since the last write."""
        await self._save()

    async def _save(self) -> bool:
        """Write if something differs from what is on disk; say whether the disk has it now."""
        # A task of its own: a caller that is cancelled must not let a later write overtake this one.
        return await asyncio.shield(asyncio.create_task(self._save_now(), name="write the ledger"))

    async def _save_now(self) -> bool:
        async with self._lock:
            ledger = self._book.ledger
            if ledger == self._saved:
                return True
            try:
                await asyncio.to_thread(self._write, self._path, rules.encoded(ledger))
            except OSError as error:
                if not self._is_said:
                    _LOG.warning(
                        "The ledger %s cannot be written: %s", self._path, error.strerror or str(error)
                    )
                self._is_said = True
                return False
            self._saved, self._is_said = ledger, False
            return True
