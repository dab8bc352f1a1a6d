"""The list of our runners on disk, so that leftovers of a killed valet are found and ended.

Decides: what is noted of a runner, and which running process is a leftover (PID, start time and command
line agree: never a name). Must not: start runners, or end anything that is not in the list.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from tray_valet.core.errors import CannotKill
from tray_valet.core.ports import Clock, ProcessTable
from tray_valet.core.processes import ProcessIdentity

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.02


class RunnerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One process of ours. `port` and `model_path` stand in its command line."""

    provider: str
    model: str
    identity: ProcessIdentity
    port: int
    model_path: str


class RunnerRecords:
    """All runners of all providers in one file; call `end_leftovers` before the first `add`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[ProcessIdentity, RunnerRecord] = {}

    def add(self, record: RunnerRecord) -> None:
        """Note a process that was just started; on disk when this returns."""
        self._records[record.identity] = record
        self._write()

    def remove(self, identity: ProcessIdentity) -> None:
        """Strike out a process that is gone; unknown: fine."""
        if self._records.pop(identity, None) is not None:
            self._write()

    async def end_leftovers(
        self, table: ProcessTable, clock: Clock, *, timeout_s: float = 2.0
    ) -> tuple[RunnerRecord, ...]:
        """Kill the runners that an earlier run left behind; return those found alive.

        One that cannot be killed, or does not go within `timeout_s`, stays in the list.
        """
        leftovers = tuple(record for record in self._read() if is_that_runner(table, record))
        self._records = {record.identity: record for record in leftovers}
        for record in leftovers:
            _LOG.warning("ending a leftover runner of %s (PID %d)", record.model, record.identity.pid)
            try:
                table.kill(record.identity)
            except CannotKill as error:
                _LOG.error("a leftover runner of %s cannot be ended: %s", record.model, error)
        deadline_s = clock.monotonic_s() + timeout_s
        while (  # noqa: ASYNC110 - they are not our children: nothing tells us of their end
            any(map(table.is_alive, self._records)) and clock.monotonic_s() < deadline_s
        ):
            await asyncio.sleep(_LOOK_S)
        self._records = {key: value for key, value in self._records.items() if table.is_alive(key)}
        self._write()
        return leftovers

    def _read(self) -> tuple[RunnerRecord, ...]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=tuple[RunnerRecord, ...])
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _LOG.warning("the list of runners cannot be read: %s", error)
            return ()

    def _write(self) -> None:
        """Replace the file in one step. No fsync: a power cut ends the runners too.

        A full disk must not keep a model from loading, since the tie to our own life is there as well.
        """
        unfinished = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(msgspec.json.encode(tuple(self._records.values())))
            os.replace(unfinished, self._path)
        except OSError as error:
            _LOG.warning("the list of runners cannot be written: %s", error)


def is_that_runner(table: ProcessTable, record: RunnerRecord) -> bool:
    """Whether that very runner is there still: after a restart of the machine another process may have both
    numbers, but not the command line."""
    process = table.describe(record.identity.pid)
    if process is None or process.identity != record.identity:
        return False
    wanted = {str(record.port), record.model_path}
    return not process.argv or wanted <= set(process.argv)
