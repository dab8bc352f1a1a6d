"""The server: where it listens, what a taken port looks like, how it ends."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from tests.web.fake_valet import FakeValet
from tests.web.wire import Site, control_site, serving
from tray_valet.core.errors import AddressInUse
from tray_valet.web.edge.listening import listen
from tray_valet.web.edge.server import WebServer


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_port_zero_is_a_free_port_that_the_server_tells() -> None:
    async with serving(_hello) as server:
        assert server.port > 0
        assert server.url == f"http://127.0.0.1:{server.port}"
        site = Site(server, FakeValet(), FakeValet().clock, None)
        assert (await site.call("GET", "/")).body == b"hello"


@pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 on this machine")
async def test_localhost_is_both_loopbacks_on_one_port() -> None:
    async with control_site(host="localhost") as site:
        request = site.request_bytes("GET", "/watchdog", headers={"Host": f"localhost:{site.server.port}"})
        for address in ("127.0.0.1", "::1"):
            assert (await site.raw(request, address=address)).status == 200


async def test_localhost_is_the_one_loopback_where_the_kernel_has_no_ipv6(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class _OldSocket(socket.socket):
        """As with the kernel's `ipv6.disable=1`: Python has IPv6, the system has not."""

        def __init__(self, family: int = -1, *args: Any, **more: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *args, **more)

    monkeypatch.setattr(socket, "socket", _OldSocket)
    sockets = await listen("localhost", 0, name="control")
    assert [each.getsockname()[0] for each in sockets] == ["127.0.0.1"]
    for each in sockets:
        each.close()


@pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 on this machine")
async def test_an_ipv6_loopback_client_is_local_too() -> None:
    async with control_site(host="::1") as site:
        assert site.server.url == f"http://[::1]:{site.server.port}"
        request = site.request_bytes("POST", "/pause", headers={"Host": f"[::1]:{site.server.port}"})
        assert (await site.raw(request, address="::1")).status == 200


@pytest.mark.parametrize("who", [None, "python (PID 42)"])
async def test_a_taken_port_is_an_error_that_names_it_and_its_owner(who: str | None) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = WebServer(_hello, name="router", host="127.0.0.1", port=port, who_listens=lambda port: who)
        with pytest.raises(AddressInUse) as caught:
            await server.start()
    assert str(port) in caught.value.message
    assert (who or "another program") in caught.value.message
    assert "router.port" in caught.value.remedy
    assert caught.value.param == "router.port"


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_a_host_that_is_not_ours_is_an_error_that_names_the_setting(host: str) -> None:
    with pytest.raises(AddressInUse) as caught:
        await WebServer(_hello, name="control", host=host, port=0).start()
    assert caught.value.param == "control.host"


async def test_the_port_is_free_again_after_the_end() -> None:
    async with serving(_hello) as first:
        port = first.port
    second = WebServer(_hello, name="control", host="127.0.0.1", port=port)
    await second.start()
    await second.stop()


async def test_a_server_that_was_stopped_refuses() -> None:
    server = WebServer(_hello, name="control", host="127.0.0.1", port=0)
    await server.start()
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_an_answer_in_the_making_is_finished_before_the_end() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go_on.wait()
        await _hello(scope, receive, send)

    async with serving(slow) as server:
        site = Site(server, FakeValet(), FakeValet().clock, None)
        asking = asyncio.create_task(site.call("GET", "/"))
        await begun.wait()
        stopping = asyncio.create_task(server.stop(grace_s=10))
        await asyncio.sleep(0)
        go_on.set()
        assert (await asking).body == b"hello"
        await asyncio.wait_for(stopping, 30)


async def test_an_app_that_never_ends_is_cut_after_the_grace() -> None:
    begun = asyncio.Event()

    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with serving(stuck) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await begun.wait()
        async with asyncio.timeout(30):
            await server.stop(grace_s=0.1)
        writer.close()


async def test_idle_connections_do_not_hold_up_the_end() -> None:
    async with serving(_hello) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        async with asyncio.timeout(15):
            await server.stop(grace_s=30)
        writer.close()


async def test_a_head_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tray_valet.web.edge.protocol.HEAD_TIMEOUT_S", 0.1)
    async with serving(_hello) as server:
        for start in (b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: x\r\nX: "):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(start)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 30)
            writer.close()


async def test_answers_do_not_wait_for_delayed_acknowledgements() -> None:
    delays: list[int] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        await _hello(scope, receive, send)

    async with serving(look) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            while not server._state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        for connection in server._state.connections:
            accepted = connection.transport.get_extra_info("socket")
            delays.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()
    assert delays
    assert all(delays)
