"""Exits of followed processes.

Decides: when a followed process is over. Must not: follow by PID alone; a PID may be somebody else's now.

Facts: pidfd_open(2): a pidfd becomes readable when the whole process has ended, zombie or reaped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import ProcessIdentity


class PolledExits:
    """`ExitSource` that looks at the few followed processes four times a second; works everywhere.

    No handle is held on them, which anti-cheat software would see.
    """

    def __init__(self, table: ProcessTable, *, every_s: float = 0.25) -> None:
        self._table = table
        self._every_s = every_s
        self._followed: set[ProcessIdentity] = set()
        self._report: Callable[[ProcessIdentity], None] | None = None
        self._timer: asyncio.Handle | None = None

    def open(self, report: Callable[[ProcessIdentity], None]) -> None:
        """Begin; `report` is called on the loop thread."""
        self._report = report

    def follow(self, identity: ProcessIdentity) -> None:
        """Report its exit once, within a tick; also if it is gone already."""
        self._followed.add(identity)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._look)

    def close(self) -> None:
        """Stop and forget."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._report = None
        self._followed.clear()

    def _look(self) -> None:
        self._timer = None
        for identity in [one for one in self._followed if not self._table.is_alive(one)]:
            self._followed.discard(identity)
            if self._report is not None:
                self._report(identity)
        if self._followed:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._look)


class PidfdExits:
    """`ExitSource` by pidfds: told at once, no wake-up before. Where none is to be had, by polling."""

    def __init__(self, table: ProcessTable) -> None:
        self._table = table
        self._handles: dict[ProcessIdentity, int] = {}
        self._polled = PolledExits(table)
        self._report: Callable[[ProcessIdentity], None] | None = None

    def open(self, report: Callable[[ProcessIdentity], None]) -> None:
        """Begin; `report` is called on the loop thread."""
        self._report = report
        self._polled.open(report)

    def follow(self, identity: ProcessIdentity) -> None:
        """Report its exit once, at once if it is gone already."""
        if identity in self._handles:
            return
        opener = getattr(os, "pidfd_open", None)
        try:
            if opener is None:
                raise OSError("no pidfds here")
            handle: int = opener(identity.pid)
        except OSError:
            self._polled.follow(identity)  # gone, or no handle to be had: its look tells which
            return
        if not self._table.is_alive(identity):  # looked at after the handle was taken: the handle is its
            os.close(handle)
            self._polled.follow(identity)
            return
        self._handles[identity] = handle
        asyncio.get_running_loop().add_reader(handle, self._ended, identity)

    def close(self) -> None:
        """Give all handles back and forget."""
        for handle in self._handles.values():
            self._drop(handle)
        self._handles.clear()
        self._polled.close()
        self._report = None

    def _ended(self, identity: ProcessIdentity) -> None:
        handle = self._handles.pop(identity, None)
        if handle is None:
            return
        self._drop(handle)
        if self._report is not None:
            self._report(identity)

    @staticmethod
    def _drop(handle: int) -> None:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
