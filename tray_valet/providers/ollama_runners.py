"""The runner processes of one Ollama server on this machine: seen, and ended when it must be.

Decides: whether a process may be ended, and what the user can do where it may not.
Must not: know which models are loaded, or touch a process that is no runner of this very server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tray_valet.core.errors import CannotKill
from tray_valet.core.ports import Clock, ProcessTable
from tray_valet.core.processes import Process, ProcessIdentity
from tray_valet.providers.ollama_processes import OllamaServer, find_runners, find_server

T = TypeVar("T")
_READ_S = 3.0  # to read the process table
_GONE_S = 2.0  # until a killed process is gone
_SEARCH_EVERY_S = 5.0  # a server that was not found is not looked for sooner again
_POLL_S = 0.02
KILL_REMEDY = (
    "Restart Ollama as the user it runs as (a Linux service: sudo systemctl restart ollama), "
    "or run Ollama as your own user."
)


class OllamaRunners:
    """The runners below the server on `port`. The process table is read in worker threads."""

    def __init__(self, table: ProcessTable, port: int, clock: Clock) -> None:
        """`port` is the TCP port of this machine that the server listens on."""
        self._table = table
        self._port = port
        self._clock = clock
        self._server: OllamaServer | None = None
        self._searched_s = float("-inf")

    async def seen(self) -> tuple[Process, ...]:
        """List the runners of now; () where it cannot be told."""
        try:
            return await self._in_thread(self._look)
        except TimeoutError:
            return ()

    async def end(self, identity: ProcessIdentity) -> None:
        """Kill one that `seen` told of, and wait until it has gone. Raises CannotKill with the remedy."""
        if self._server is None or not self._server.is_certain:
            raise _not_ours(identity)
        try:
            await self._in_thread(lambda: self._table.kill(identity))
        except (CannotKill, TimeoutError) as error:
            raise _not_ours(identity) from error
        deadline_s = self._clock.monotonic_s() + _GONE_S
        while True:
            if not self._table.is_alive(identity) or self._clock.monotonic_s() >= deadline_s:
                return
            await asyncio.sleep(_POLL_S)

    def _look(self) -> tuple[Process, ...]:
        """Runs in a worker thread. The server is looked up once for as long as it lives."""
        server = self._server
        if server is None or not self._table.is_alive(server.identity):
            now_s = self._clock.monotonic_s()
            if server is None and now_s - self._searched_s < _SEARCH_EVERY_S:
                return ()
            self._searched_s = now_s
            server = self._server = find_server(self._table, self._port)
        return find_runners(self._table, server.identity) if server else ()

    async def _in_thread(self, read: Callable[[], T]) -> T:
        async with asyncio.timeout(_READ_S):
            return await asyncio.to_thread(read)


def _not_ours(identity: ProcessIdentity) -> CannotKill:
    return CannotKill(f"Ollama's process {identity.pid} belongs to another user.", remedy=KILL_REMEDY)
