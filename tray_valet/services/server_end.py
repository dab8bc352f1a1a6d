"""The end of a server's processes: asked first, waited for, and only then ended by force.

Decides: the order and the bounds. Must not: choose which processes they are (`core/service_plan.py` and the
system's adapter do), or touch any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from tray_valet.core.errors import CannotKill
from tray_valet.core.ports import Clock, ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.core.service_plan import ServiceSite, Way

ASKED_S = 10.0  # from the first word to force
_LOOK_S = 0.05
_KILLED_S = 3.0
_CALL_S = 5.0
# What these keep ends by a command of theirs; they are given time before a process is touched.
_COMMANDED = frozenset({Way.USER_UNIT, Way.LAUNCH_AGENT, Way.WINDOWS_SERVICE, Way.MAC_APP})


class ServerEnd:
    """Ends servers. Signals are sent, and looked at, in worker threads."""

    def __init__(self, table: ProcessTable, clock: Clock, *, asked_s: float = ASKED_S) -> None:
        """`asked_s`: seconds that a server has to end by itself."""
        self._table = table
        self._clock = clock
        self._asked_s = asked_s

    async def kill(self, processes: Iterable[ProcessIdentity]) -> None:
        """End these at once and wait until they are gone. Raises CannotKill."""
        wanted = tuple(processes)
        for identity in wanted:
            await _in_thread(self._table.kill, identity)
        if not await self._are_gone(wanted, _KILLED_S):
            raise CannotKill("Processes of the server did not end although they were killed.")

    async def end(self, site: ServiceSite) -> bool:
        """End the site's server with its keepers and runners; returns whether force was needed.

        A server that a service keeps was told to end already, by that service. Raises CannotKill.
        """
        server = site.server
        if server is None:
            return False
        asked_s = self._clock.monotonic_s()
        everyone = (*site.keepers, server.identity)
        grace_s = self._asked_s / 2 if server.kept_by in _COMMANDED else 0.0
        if not await self._are_gone((server.identity,), grace_s) or grace_s == 0.0:
            for identity in everyone:  # keepers first: they would start the server again
                await _in_thread(self._table.terminate, identity)
        left_s = self._asked_s - (self._clock.monotonic_s() - asked_s)
        was_killed = not await self._are_gone(everyone, left_s)
        runners = site.runners
        if was_killed:
            # Looked up while they can be told by their parent; they outlive one that is killed.
            runners += await asyncio.to_thread(self._table.descendants, server.identity.pid)
            await self.kill(everyone)
        if not await self._are_gone(runners, 0.0 if was_killed else 1.0):
            await self.kill(runners)
        return was_killed

    async def _are_gone(self, processes: tuple[ProcessIdentity, ...], within_s: float) -> bool:
        deadline_s = self._clock.monotonic_s() + within_s
        while True:
            if not await asyncio.to_thread(lambda: any(map(self._table.is_alive, processes))):
                return True
            if self._clock.monotonic_s() >= deadline_s:
                return False
            await asyncio.sleep(_LOOK_S)


async def _in_thread(call: Callable[[ProcessIdentity], None], identity: ProcessIdentity) -> None:
    async with asyncio.timeout(_CALL_S):
        await asyncio.to_thread(call, identity)
