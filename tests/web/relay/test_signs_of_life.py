"""Signs of life go on, whatever becomes of one of those who get them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from tests.web.fake_valet import FakeValet
from tests.web.raw_engine import raw_engine
from tests.web.wire import router_site
from tray_valet.core.dialects import CHAT
from tray_valet.web.edge.protocol import ValetHttpProtocol
from tray_valet.web.relay.delivery import SignsOfLife


class _Waiting:
    """Stands for a delivery."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.signs = 0

    def give_sign(self) -> None:
        self.signs += 1
        if self.fails:
            raise RuntimeError("the transport is closed")


async def test_one_that_cannot_be_told_keeps_nobody_else_from_it() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    signs = SignsOfLife(0.01)
    broken, others = _Waiting(fails=True), [_Waiting(), _Waiting()]
    for waiting in (others[0], broken, others[1]):
        signs.add(cast(Any, waiting))
    later = _Waiting()
    async with asyncio.timeout(20):
        while broken.signs < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        signs.add(cast(Any, later))
        while not all(waiting.signs > 2 for waiting in (*others, later)):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    signs.close()


async def test_of_requests_in_a_row_all_know_that_their_client_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost: asyncio.Future[tuple[bool, bool]] = asyncio.get_running_loop().create_future()
    original = ValetHttpProtocol.connection_lost

    def connection_lost(self: ValetHttpProtocol, exc: Exception | None) -> None:
        answered = self._answered
        original(self, exc)
        assert answered is not None
        lost.set_result((answered is not self.cycle, answered.is_writable))

    valet = FakeValet()
    async with raw_engine([b""]) as engine, router_site(valet) as site:
        valet.candidates = [("engine", engine.url)]
        monkeypatch.setattr(ValetHttpProtocol, "connection_lost", connection_lost)
        body = {"model": "llama3", "messages": [], "stream": True}
        request = site.request_bytes("POST", CHAT, body, {"Connection": "keep-alive"})
        _, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(request + request)
        async with asyncio.timeout(20):
            while not engine.requests:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            writer.transport.abort()
            assert await lost == (True, False)
