"""Which program image each process was last seen with.

Decides: whether a look at a process shows something that was not reported yet.
Must not: judge the image, or keep anything of processes that are gone.

An image is (PID, start time, exe, argv). It is reported when it differs from the one that was last seen
in that process, so an `exec` is news and a second look is not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import Process


class ImageKey(NamedTuple):
    """What tells one image from another, as cheaply as the system gives it."""

    start_time: int
    exe: str
    argv_hash: int | None  # None: not looked at (dear on this system), so not compared


class ImageTable(ProcessTable, Protocol):
    """A process table that also has a cheap look."""

    def glance(self, pid: int) -> ImageKey | None:
        """Tell the image there now without describing it; None when `describe` would say None."""
        ...

    def exe(self, pid: int) -> str:
        """Tell the exe there now, by the cheapest call there is; "" where it is not told."""
        ...


def key_of(process: Process) -> ImageKey:
    """Tell the key of a described process."""
    return ImageKey(process.identity.start_time, process.exe, hash(process.argv))


class SeenImages:
    """The last image of every process that was looked at. One writer: the watch."""

    def __init__(self, table: ImageTable) -> None:
        self._table = table
        self._keys: dict[int, ImageKey] = {}

    def look(self, pid: int) -> Process | None:
        """Describe the process if its image is new; None when it is not, or the process is gone."""
        process = self._table.describe(pid)
        if process is None:
            self._keys.pop(pid, None)
            return None
        key = key_of(process)
        if self._keys.get(pid) == key:
            return None
        self._keys[pid] = key
        return process

    def look_again(self, pid: int) -> Process | None:
        """As `look`, but describe only what a glance shows to have changed."""
        glance = self._table.glance(pid)
        if glance is None:
            self._keys.pop(pid, None)
            return None
        known = self._keys.get(pid)
        if known is not None and known[:2] == glance[:2] and glance.argv_hash in (None, known.argv_hash):
            return None
        return self.look(pid)

    def start_time(self, pid: int) -> int | None:
        """Tell the start time of the process last seen under that PID; None when there is none."""
        key = self._keys.get(pid)
        return key.start_time if key is not None else None

    def exe(self, pid: int) -> str | None:
        """Tell the exe last seen under that PID; None when nothing was seen there."""
        key = self._keys.get(pid)
        return key.exe if key is not None else None

    def keep_only(self, pids: Collection[int]) -> None:
        """Forget every process that is not among `pids`."""
        for pid in self._keys.keys() - set(pids):
            del self._keys[pid]
