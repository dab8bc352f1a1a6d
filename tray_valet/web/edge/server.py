"""A web server: one ASGI app on its sockets, inside our event loop.

Decides: when it listens, and how it ends: refuse, tell streams to end, wait a little, cut.
Must not: install signal handlers, configure logging or own the loop; so uvicorn's protocol is used
without uvicorn's server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from tray_valet.core.addresses import as_ip
from tray_valet.core.errors import AddressInUse
from tray_valet.web.edge.listening import BACKLOG, listen
from tray_valet.web.edge.protocol import protocol_class

_log = logging.getLogger(__name__)
_KEEP_ALIVE_S = 30
_POLL_S = 0.02
_LET_GO_S = 3.0


class WebServer:
    """Serves `app` at `host`:`port` (0 = any free one).

    `name` is the settings' section (`control`, `router`). `on_stopping` is called first when it ends:
    it tells open streams to finish. `who_listens` names the program at a taken port, for the error.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        name: str,
        host: str,
        port: int,
        on_stopping: Callable[[], None] | None = None,
        who_listens: Callable[[int], str | None] | None = None,
    ) -> None:
        self._app = app
        self._name = name
        self._host = host
        self._port = port
        self._asked = (host, port)
        self._on_stopping = on_stopping
        self._who_listens = who_listens
        self._servers: list[asyncio.Server] = []
        self._state = ServerState()
        self._letting_go: set[asyncio.Task[None]] = set()

    @property
    def asked(self) -> tuple[str, int]:
        """Host and port as they were asked for; port 0 = any free one."""
        return self._asked

    @property
    def port(self) -> int:
        """The port it really listens at; the one asked for before `start`."""
        return self._port

    @property
    def url(self) -> str:
        """Where programs on this machine find it (`http://127.0.0.1:8765`)."""
        address = as_ip(self._host)
        host = self._host
        if address is not None and address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
        elif address is None and host.lower() == "localhost":
            host = "127.0.0.1"
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen; requests are answered from here on. Raises AddressInUse."""
        await self._listen_at(self._host, self._port)
        _log.info("The %s API listens at %s", self._name, self.url)

    @asynccontextmanager
    async def moved(self, host: str, port: int | None) -> AsyncIterator[str]:
        """Listen at another address (port None: the same, 0: any) and yield the new url.

        If the block raises, the old address stays. The old one is let go of afterwards, with a moment for
        the answers that are under way. Only where old and new are in each other's way (127.0.0.1 and
        0.0.0.0 with the same port) the old one is closed first. Raises AddressInUse; then nothing changes.
        """
        before = (self._host, self._port, self._asked, self._servers)
        connections = set(self._state.connections)
        if host == self._host and port in (None, self._port, self._asked[1]):
            yield self.url
            return
        is_closed = await self._listen_beside(host, self._port if port is None else port)
        self._asked = (host, self._asked[1] if port is None else port)
        try:
            yield self.url
        except BaseException:
            for server in self._servers:
                server.close()
            self._host, self._port, self._asked, self._servers = before
            if is_closed:
                await self._listen_at(self._host, self._port)
            raise
        for server in before[3]:
            server.close()
        task = asyncio.create_task(self._let_go(connections), name=f"old {self._name} connections")
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    async def _listen_beside(self, host: str, port: int) -> bool:
        """Listen there too; say whether the old address had to be closed for that. Raises AddressInUse."""
        try:
            await self._listen_at(host, port)
        except AddressInUse:
            if port != self._port:
                raise
        else:
            return False
        for server in self._servers:
            server.close()
        try:
            await self._listen_at(host, port)
        except AddressInUse:
            await self._listen_at(self._host, self._port)
            raise
        return True

    async def _let_go(self, connections: set[Any]) -> None:
        """Close connections to an address that is no longer ours; a moment later those that go on."""
        for connection in connections & set(self._state.connections):
            connection.shutdown()
        await asyncio.sleep(_LET_GO_S)
        for connection in connections & set(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _listen_at(self, host: str, port: int) -> None:
        """Open the sockets and serve on them. Raises AddressInUse; then nothing has changed."""
        sockets = await listen(host, port, name=self._name, who_listens=self._who_listens)
        self._host, self._port = host, sockets[0].getsockname()[1]
        config = Config(
            self._app,
            http=protocol_class(),
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            log_level="critical",  # the guard logs what matters
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        config.load()
        loop = asyncio.get_running_loop()

        def connection() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg,unused-ignore]
                config=config, server_state=self._state, app_state={}, _loop=loop
            )
            return made

        # asyncio listens once more, with a backlog of its own.
        self._servers = [
            await loop.create_server(connection, sock=listener, backlog=BACKLOG) for listener in sockets
        ]

    async def stop(self, *, grace_s: float = 2.0) -> None:
        """Refuse new connections, let answers finish for up to `grace_s` seconds, cut the rest."""
        for server in self._servers:
            server.close()
        self._servers = []
        if self._on_stopping is not None:
            self._on_stopping()
        for task in self._letting_go:
            task.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()  # idle ones close now, busy ones after their answer
        await self._wait_idle(grace_s)
        for connection in list(self._state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()
        await self._wait_idle(min(grace_s, 0.5))
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=0.5)

    async def _wait_idle(self, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        # uvicorn's protocol keeps these sets and tells nobody when they are empty.
        while (self._state.tasks or self._state.connections) and loop.time() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
