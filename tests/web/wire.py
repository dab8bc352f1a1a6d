"""Real servers on free ports, and a client that sends exactly the bytes a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from tests.web.fake_desks import FakeDesks
from tests.web.fake_valet import FakeClock, FakeValet
from tray_valet.web.control.api import ControlApi
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import ControlKeys, RouterKeys
from tray_valet.web.edge.policies import GuardPolicy, control_policy, router_policy
from tray_valet.web.edge.server import WebServer
from tray_valet.web.relay.dialect_errors import answer_at, unexpected_at
from tray_valet.web.relay.relay import Relay
from tray_valet.web.router.api import RouterApi

TOKEN = "token-of-the-runtime-file"
SECRETS = {"control": "correct horse", "laptop": "sk-laptop", "phone": "sk-phone"}


class Reply:
    """An HTTP answer as it came over the socket."""

    def __init__(self, raw: bytes) -> None:
        head, _, rest = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.header_list = [tuple(line.split(": ", 1)) for line in lines[1:]]
        self.headers = {name.lower(): value for name, value in self.header_list}
        self.body = _unchunked(rest) if self.headers.get("transfer-encoding") == "chunked" else rest

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


def _unchunked(raw: bytes) -> bytes:
    body = b""
    while raw:
        size, _, rest = raw.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return body
        body += rest[:length]
        raw = rest[length + 2 :]
    return body


class Site:
    """One running server with its fake valet."""

    def __init__(self, server: WebServer, valet: FakeValet, clock: FakeClock, api: Any) -> None:
        self.server = server
        self.valet = valet
        self.clock = clock
        self.api = api

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def raw(self, data: bytes, *, address: str = "127.0.0.1") -> Reply:
        """Send bytes, read until the server closes."""
        reader, writer = await asyncio.open_connection(address, self.server.port)
        try:
            writer.write(data)
            return Reply(await asyncio.wait_for(reader.read(), 30))
        finally:
            writer.close()

    def request_bytes(
        self, method: str, target: str, body: Any = None, headers: dict[str, str | None] | None = None
    ) -> bytes:
        """A request with usual headers; None in `headers` leaves one out."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields: dict[str, str | None] = {"Host": self.host, "Connection": "close"}
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        fields |= headers or {}
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content

    async def call(
        self, method: str, target: str, body: Any = None, headers: dict[str, str | None] | None = None
    ) -> Reply:
        """One request in good form, but for what the test changes."""
        return await self.raw(self.request_bytes(method, target, body, headers))


@asynccontextmanager
async def serving(
    app: ASGIApp, *, host: str = "127.0.0.1", name: str = "control", **options: Any
) -> AsyncIterator[WebServer]:
    """A server around any app."""
    server = WebServer(app, name=name, host=host, port=0, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace_s=0.5)


@asynccontextmanager
async def control_site(
    valet: FakeValet | None = None, *, host: str = "127.0.0.1", **policy: Any
) -> AsyncIterator[Site]:
    """The guarded control API; `policy` changes fields of the guard's policy."""
    valet = valet or FakeValet()
    api = ControlApi(valet, clock=valet.clock)
    keys = ControlKeys(lambda: valet.settings, token=lambda: TOKEN, resolve_secret=SECRETS.get)
    guard = Guard(api, policy=lambda: _changed(control_policy(valet.settings), policy), keys=keys)
    async with serving(guard, host=host, on_stopping=api.end_streams) as server:
        yield Site(server, valet, valet.clock, api)


@asynccontextmanager
async def router_site(
    valet: FakeValet | None = None, *, relay: Relay | None = None, **policy: Any
) -> AsyncIterator[Site]:
    """The guarded router API."""
    valet = valet or FakeValet()
    api = RouterApi(valet, relay=relay or Relay(valet))
    keys = RouterKeys(lambda: valet.settings, resolve_secret=SECRETS.get)
    guard = Guard(
        api,
        policy=lambda: _changed(router_policy(valet.settings), policy),
        keys=keys,
        shape=answer_at,
        shape_unexpected=unexpected_at,
    )
    async with serving(guard, name="router", on_stopping=api.end_streams) as server:
        yield Site(server, valet, valet.clock, api)
    await api.close()


def _changed(policy: GuardPolicy, changes: dict[str, Any]) -> GuardPolicy:
    import msgspec

    return msgspec.structs.replace(policy, **changes) if changes else policy


@asynccontextmanager
async def desks_site(
    config_file: Path, valet: FakeValet | None = None, *, router: ASGIApp | None = None
) -> AsyncIterator[tuple[Site, FakeDesks]]:
    """The guarded control API with its desks."""
    valet = valet or FakeValet()
    desks = FakeDesks(valet, config_file)
    api = ControlApi(valet, clock=valet.clock, desks=desks.for_api, router=lambda: router)
    keys = ControlKeys(lambda: valet.settings, token=lambda: TOKEN, resolve_secret=SECRETS.get)
    guard = Guard(api, policy=lambda: control_policy(valet.settings), keys=keys)
    async with serving(guard, on_stopping=api.end_streams) as server:
        yield Site(server, valet, valet.clock, api), desks
