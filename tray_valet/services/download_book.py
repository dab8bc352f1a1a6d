"""The download book: the queue on the disk.

Decides: how the queue is written and read. Must not: decide what is in it (`core.downloads` does).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from tray_valet.core.downloads import Queue
from tray_valet.services.kept_file import read_kept

_LOG = logging.getLogger(__name__)
Write = Callable[[Path, bytes], None]


class DownloadBook:
    """Keeps the queue in `file`, always whole."""

    def __init__(self, file: Path, write: Write) -> None:
        self._file = file
        self._write = write
        self._lock = asyncio.Lock()
        self._written: bytes | None = None
        self._is_failing = False

    def read(self) -> Queue:
        """The queue as it was left; empty without a file."""
        found = read_kept(self._file, msgspec.json.Decoder(Queue).decode, "The list of downloads")
        return Queue() if found is None else found

    async def keep(self, queue: Queue) -> None:
        """Have the queue on the disk when this returns; said once where that is not possible."""
        data = msgspec.json.encode(queue)
        async with self._lock:
            if data == self._written:
                return
            try:
                await asyncio.to_thread(self._write, self._file, data)
            except OSError as error:
                if not self._is_failing:
                    _LOG.error("The list of downloads cannot be written: %s", error)
                self._is_failing = True
                return
            self._written, self._is_failing = data, False
