"""Process starts by looking at the list of PIDs four times a second.

Decides: when the list is read and which PIDs are new in it.
Must not: look into the processes; the watch does.

A look costs next to nothing while nothing starts: on Linux the last PID given out (/proc/loadavg) says
whether the list can have changed at all. A process that has run for a while and then `exec`s gets no new
PID; with `is_rota` each tick names a tenth of the old ones for a look at their exe, so that such an exec
is seen within 2.5 s and not only by the next sweep.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from typing import Protocol

from tray_valet.sensing.process_sources import StartListener

_YOUNG_S = 5.0
_ROTA_TICKS = 10


class NewsGate(Protocol):
    """A cheap test before the list of PIDs is read."""

    def has_moved(self) -> bool:
        """Whether processes may have started since the last call."""
        ...

    def close(self) -> None: ...


class LastPidGate:
    """Linux's gate: the last PID given out in our PID namespace, from /proc/loadavg (proc_loadavg(5)).

    Threads take PIDs too, so it opens more often than needed, never less. Where /proc shows another
    namespace than ours, it says nothing about the list there and stays open.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._file = -1
        self._last = b""
        self._is_once_more = False
        if _shows_our_namespace(proc):
            self._file = os.open(f"{proc}/loadavg", os.O_RDONLY | os.O_CLOEXEC)

    def has_moved(self) -> bool:
        """Whether a PID was given out since the last call, or just before it.

        A PID is counted an instant before its process is listed: after a move the list is read twice.
        """
        if self._file < 0:
            return True
        try:
            last = os.pread(self._file, 128, 0).rsplit(None, 1)[-1]
        except (OSError, IndexError):
            return True
        has_moved = last != self._last
        was_moved, self._is_once_more = self._is_once_more, has_moved
        self._last = last
        return has_moved or was_moved

    def close(self) -> None:
        """Give the file back; the gate stays open from then on."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _shows_our_namespace(proc: str) -> bool:
    """Whether /proc belongs to our PID namespace: one PID in NSpid, and it is ours."""
    try:
        with open(f"{proc}/self/status", encoding="utf-8", errors="replace") as status:
            for line in status:
                if line.startswith("NSpid:"):
                    return line.split()[1:] == [str(os.getpid())]
    except OSError:
        return False
    return False


class PollSource:
    """`StartSource` by polling; works everywhere."""

    def __init__(
        self,
        list_pids: Callable[[], Collection[int]],
        *,
        every_s: float = 0.25,
        open_gate: Callable[[], NewsGate] | None = None,
        is_rota: bool = False,
    ) -> None:
        """`list_pids` is called on the loop thread and must take well under a millisecond."""
        self._list_pids = list_pids
        self._every_s = every_s
        self._open_gate = open_gate
        self._is_rota = is_rota
        self._gate: NewsGate | None = None
        self._known: set[int] = set()
        self._rota: list[int] = []
        self._listener: StartListener | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """`poll 4 Hz`."""
        return f"poll {1 / self._every_s:g} Hz"

    @property
    def relook_ages_s(self) -> tuple[float, ...]:
        """Every tick of a process's first 5 s."""
        return tuple(self._every_s * n for n in range(1, int(_YOUNG_S / self._every_s) + 1))

    async def open(self, listener: StartListener) -> None:
        """Begin; what runs already is not told, the watch sweeps it."""
        self._listener = listener
        self._gate = self._open_gate() if self._open_gate is not None else None
        self._known = set(self._list_pids())
        self._plan_tick()

    async def check(self) -> None:
        """Nothing can be the matter with it."""

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
        if self._gate is not None:
            self._gate.close()
        self._timer = self._gate = self._listener = None

    def _plan_tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._tick)

    def _tick(self) -> None:
        self._plan_tick()
        if self._listener is None:
            return
        if self._gate is None or self._gate.has_moved():
            now = set(self._list_pids())
            new = now - self._known
            self._known = now
            if new:
                self._listener.heard(sorted(new))
        if self._is_rota:
            if not self._rota:
                self._rota = list(self._known)
            count = len(self._known) // _ROTA_TICKS + 1
            turn, self._rota = self._rota[:count], self._rota[count:]
            self._listener.suspected(turn)
