"""A server that moves: the new address listens before the old is let go, and a failure changes nothing."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.ports import quiet_port
from tests.web.wire import serving
from tray_valet.core.errors import AddressInUse
from tray_valet.web.edge.server import WebServer


async def hello(scope: object, receive: object, send: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b"hi"})  # type: ignore[operator]


async def answers(port: int, host: str = "127.0.0.1") -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    try:
        return b" 200 " in await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


async def test_both_addresses_answer_until_the_move_is_done() -> None:
    async with serving(hello) as server:  # type: ignore[arg-type]
        old = server.port
        async with server.moved("127.0.0.1", 0) as url:
            assert url == server.url
        assert server.port == old  # 0 was asked for from the beginning: nothing to do
        free = quiet_port()
        async with server.moved("127.0.0.1", free):
            assert (await answers(old), await answers(free)) == (True, True)
        assert (await answers(old), await answers(free)) == (False, True)
        assert server.asked == ("127.0.0.1", free)


async def test_a_taken_port_changes_nothing() -> None:
    async with serving(hello) as server:  # type: ignore[arg-type]
        old, url, asked = server.port, server.url, server.asked
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(AddressInUse):
                async with server.moved("127.0.0.1", other.getsockname()[1]):
                    pytest.fail("it does not listen there")
        with pytest.raises(AddressInUse):
            async with server.moved("192.0.2.1", None):
                pytest.fail("that is not our address")
        assert (server.port, server.url, server.asked) == (old, url, asked)
        assert await answers(old)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_what_fails_during_the_move_brings_the_old_address_back(host: str) -> None:
    async with serving(hello) as server:  # type: ignore[arg-type]
        old = server.port
        port = quiet_port() if host == "127.0.0.1" else None
        with pytest.raises(ZeroDivisionError):
            async with server.moved(host, port):
                raise ZeroDivisionError
        assert (server.url, server.port) == (f"http://127.0.0.1:{old}", old)
        assert await answers(old)


async def test_the_same_port_at_every_address_and_back() -> None:
    async with serving(hello) as server:  # type: ignore[arg-type]
        port = server.port
        async with server.moved("0.0.0.0", None):
            pass
        assert server.port == port
        assert await answers(port, "127.0.0.2")
        async with server.moved("127.0.0.1", None):
            pass
        assert (await answers(port), await answers(port, "127.0.0.2")) == (True, False)


async def test_an_answer_under_way_at_the_old_address_is_finished() -> None:
    going = asyncio.Event()

    async def slow(scope: object, receive: object, send: object) -> None:
        await going.wait()
        await hello(scope, receive, send)

    async with serving(slow) as server:  # type: ignore[arg-type]
        asking = asyncio.create_task(answers(server.port))
        while not server._state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        async with server.moved("127.0.0.1", quiet_port()):
            pass
        going.set()
        assert await asking


async def test_a_moved_server_ends_as_any_other() -> None:
    server = WebServer(hello, name="control", host="127.0.0.1", port=0)  # type: ignore[arg-type]
    await server.start()
    async with server.moved("127.0.0.1", quiet_port()):
        pass
    await server.stop(grace_s=0.5)
    assert not await answers(server.port)
