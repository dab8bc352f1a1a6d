"""The request log: a JSON line for each request that ended, in rotating files (5 MB × 3).

Decides: what a line says (never a body), and what happens when the disk does not take it: requests go on,
and that it is so is said once. Must not: wait for the disk on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import msgspec

from tray_valet.core.traffic import Exchanged, Outcome

_LOG = logging.getLogger(__name__)
_MAX_BYTES = 5 * 2**20
_BACKUPS = 2  # beside the current one: three files in all
_EVERY_S = 1.0
_WAITING = 10_000  # lines; a disk that hangs must not fill the memory
_WRITE_TIMEOUT_S = 5.0
_SLICE = 32  # lines written out at a time: about 0.1 ms of the loop
_LONGEST_NAME = 300
_encode = msgspec.json.Encoder().encode


class RequestLog:
    """Owns the file. `note` takes a line, `run` writes them."""

    def __init__(self, file: Path, *, max_bytes: int = _MAX_BYTES, every_s: float = _EVERY_S) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._every_s = every_s
        self._waiting: deque[Exchanged] = deque()
        self._lost = 0
        self._problem = ""
        self._writing: asyncio.Task[None] | None = None
        self.gather: Callable[[], None] = lambda: None  # handed over: has others `note` what they still hold

    def note(self, record: Exchanged) -> None:
        """Take a line down, to be written within a second. Never fails, never waits."""
        if len(self._waiting) < _WAITING:
            self._waiting.append(record)
        else:
            self._lost += 1

    async def run(self) -> None:
        """Write what has come, every second, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self._flush()

    async def close(self) -> None:
        """Write the rest, within 5 s."""
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await self._flush()
        except TimeoutError:
            _LOG.warning("The disk did not take the last lines of %s in time.", self._file)

    async def _flush(self) -> None:
        self.gather()
        # One writer at a time, and a cancelled caller does not tear its lines out of order.
        while self._writing is not None and not self._writing.done():
            await asyncio.shield(self._writing)
        if self._waiting:
            self._writing = asyncio.create_task(self._write(), name="write the request log")
            await asyncio.shield(self._writing)

    async def _write(self) -> None:
        records = list(self._waiting)
        self._waiting.clear()
        lost, self._lost = self._lost, 0
        lines: list[bytes] = []
        for start in range(0, len(records), _SLICE):
            # Here, and not in the thread: it would take the interpreter from requests for longer at a time.
            lines += map(_line, records[start : start + _SLICE])
            await asyncio.sleep(0)
        try:
            await asyncio.to_thread(self._append, lines)
        except OSError as error:
            self._say(f"Requests are not written down: {error.strerror or error} ({self._file}).")
        else:
            if lost:
                _LOG.warning("%d requests were not written down: the disk was too slow.", lost)
            elif self._problem:
                _LOG.info("Requests are written down again (%s).", self._file)
            self._problem = ""

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            _LOG.warning("%s", problem)
        self._problem = problem

    def _append(self, lines: list[bytes]) -> None:
        """In a worker thread."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        batch: list[bytes] = []
        size_bytes = _size(self._file)
        for line in lines:
            if size_bytes and size_bytes + len(line) > self._max_bytes:
                self._add(batch)
                batch = []
                self._rotate()
                size_bytes = 0
            batch.append(line)
            size_bytes += len(line)
        self._add(batch)

    def _add(self, lines: list[bytes]) -> None:
        if not lines:
            return
        # 0600 from the start: it names models and clients. O_APPEND: a line is never written over another.
        with open(self._file, "ab", opener=_private) as file:
            file.write(b"".join(lines))

    def _rotate(self) -> None:
        for number in range(_BACKUPS, 0, -1):
            older = self._backup(number)
            newer = self._backup(number - 1) if number > 1 else self._file
            if newer.exists():
                os.replace(newer, older)

    def _backup(self, number: int) -> Path:
        return self._file.with_name(f"{self._file.name}.{number}")


class _Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the log says of a request, durations in seconds. What has a default here says nothing, and is left
    out. One struct and no dicts: requests wait meanwhile."""

    time: str
    asked: str = ""
    path: str
    client: str = ""
    priority: str
    provider: str = ""
    model: str = ""
    reason: str = ""
    attempts: int
    is_stream: bool
    status: int
    outcome: Outcome
    error_code: str = ""
    queue_s: float
    load_s: float
    first_byte_s: float | None = None
    total_s: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    answer_bytes: int


def _line(record: Exchanged) -> bytes:
    first_byte_s = record.first_byte_s
    line = _Line(
        time=_time_of(record.at),
        asked=record.asked[:_LONGEST_NAME],
        path=record.path,
        client=record.client,
        priority=record.priority,
        provider=record.provider,
        model=record.model,
        reason=record.reason,
        attempts=record.attempts,
        is_stream=record.is_stream,
        status=record.status,
        outcome=record.outcome,
        error_code=record.error_code,
        queue_s=round(record.queue_s, 6),
        load_s=round(record.load_s, 6),
        first_byte_s=round(first_byte_s, 6) if first_byte_s is not None else None,
        total_s=round(record.total_s, 6),
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        answer_bytes=record.answer_bytes,
    )
    return _encode(line) + b"\n"


def _time_of(at: float) -> str:
    """A time (Unix seconds) as in RFC 3339, to the millisecond."""
    second, of_it_us = divmod(round(at * 1e6), 10**6)
    return f"{_second_of(second)}.{of_it_us // 1000:03d}+00:00"


@lru_cache(maxsize=4)
def _second_of(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
