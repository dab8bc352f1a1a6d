"""Engines that answer in unusual ways, and clients that ask in unusual ways: what goes over the wire."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.web.at_once import is_open_already as is_open_already
from tests.web.at_once import open_to
from tests.web.fake_valet import FakeValet
from tests.web.raw_engine import raw_engine
from tests.web.wire import Site, router_site, serving
from tray_valet.core.models import ProviderKind
from tray_valet.web.relay.relay import Relay

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "llama3", "messages": []}
OK: list[bytes | None] = [
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n" + b'{"choices":[]}'
]


@asynccontextmanager
async def routed(*engines: list[list[bytes | None]]) -> AsyncIterator[Site]:
    """A router in front of engines; each gives its answers one after another."""
    valet = FakeValet()
    async with AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(raw_engine(*answers))).url for answers in engines]
        valet.candidates = [(f"engine{n}", url) for n, url in enumerate(urls)]
        relay = Relay(valet)
        await open_to(relay, *urls)
        yield await stack.enter_async_context(router_site(valet, relay=relay))


def head(status: str, *more: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *more]).encode() + b"\r\n\r\n"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_an_answer_that_has_no_body_by_its_status_is_not_sent_in_chunks(status: str) -> None:
    async with routed([[head(status)], OK]) as site:
        keep = {"Connection": "keep-alive"}
        raw = await _bytes(
            site, site.request_bytes("POST", CHAT, ASK, keep) + site.request_bytes("POST", CHAT, ASK)
        )
    first, _, rest = raw.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 " + status.split()[0].encode())
    assert b"transfer-encoding" not in first.lower()
    assert rest.startswith(b"HTTP/1.1 200"), "nothing is between the two answers"


async def test_who_answered_is_what_we_say_even_if_the_engine_is_a_valet_too() -> None:
    answer: list[bytes | None] = [
        head(
            "200 OK",
            "Content-Type: application/json",
            "Content-Length: 2",
            "X-Valet-Provider: theirs",
            "X-Valet-Model: theirs",
            "X-Valet-Reason: theirs",
        )
        + b"{}"
    ]
    async with routed([answer]) as site:
        reply = await site.call("POST", CHAT, ASK)
    for name in ("x-valet-provider", "x-valet-model", "x-valet-reason"):
        said = [value for key, value in reply.header_list if key.lower() == name]
        assert len(said) == 1
        assert said != ["theirs"]


async def test_a_short_whole_answer_that_breaks_off_is_the_next_candidates() -> None:
    broken: list[bytes | None] = [
        head("200 OK", "Content-Type: application/json", "Content-Length: 100") + b'{"choices":',
        None,
    ]
    async with routed([broken], [OK]) as site:
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.body) == (200, b'{"choices":[]}')
        assert reply.headers["x-valet-provider"] == "engine1"
    async with routed([broken]) as site:
        reply = await site.call("POST", CHAT, ASK)
        assert (reply.status, reply.code) == (502, "upstream_failed")


async def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    event = b"data: {}\n\n"
    stream: list[bytes | None] = [
        head("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event)
    ]
    async with routed([stream]) as site:
        asked = site.request_bytes("POST", CHAT, {**ASK, "stream": True})
        raw = await _bytes(site, asked.replace(b"HTTP/1.1", b"HTTP/1.0"))
    answer_head, _, body = raw.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in answer_head.lower()
    assert body == event


@pytest.mark.skipif(not hasattr(select, "poll"), reason="select() takes too few sockets")
async def test_a_crowd_that_comes_in_one_moment_finds_the_door_open() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    async with serving(app, name="router") as server:
        clients = [socket.socket() for _ in range(300)]
        try:
            poll = select.poll()
            for client in clients:
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", server.port))
                poll.register(client, select.POLLOUT)
            # The loop takes none in meanwhile: all of them wait in the listener's backlog.
            assert len(poll.poll(200)) == len(clients)
        finally:
            for client in clients:
                client.close()


async def _bytes(site: Site, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


FAILED: list[bytes | None] = [
    head("500 Internal Server Error", "Content-Type: application/json", "Content-Length: 2") + b"{}"
]
UNREADABLE = b'{"model":"llama3","messages":[{"role":"user","content":"' + b"x" * 200_000 + b'\\q"}]}'


@pytest.mark.parametrize(
    ("body", "status", "attempts", "code"),
    [
        (UNREADABLE, 400, 1, "invalid_json"),
        (UNREADABLE.replace(b"\\q", b"\\n"), 502, 2, "upstream_failed"),
    ],
    ids=["unreadable", "readable"],
)
async def test_a_large_body_that_an_engine_cannot_read_is_no_failure_of_the_engine(
    body: bytes, status: int, attempts: int, code: str
) -> None:
    """Its long texts are passed over at first: the engine sees first that they are no JSON."""
    async with routed([FAILED], [FAILED]) as site:
        reply = await site.call("POST", CHAT, body, {"Content-Type": "application/json"})
        noted = site.valet.exchanged[-1]
        assert (reply.status, noted.attempts, noted.error_code) == (status, attempts, code)


async def test_nothing_is_loaded_for_a_large_body_that_nobody_can_read() -> None:
    async with routed([OK]) as site, asyncio.timeout(20):
        site.valet.admitting = asyncio.Event()  # never: who has to wait, waits for ever
        reply = await site.call("POST", CHAT, UNREADABLE, {"Content-Type": "application/json"})
        assert (reply.status, reply.code) == (400, "invalid_json")
        assert site.valet.in_flight == 0


@pytest.mark.parametrize("kind", [ProviderKind.LLAMA_SERVER, ProviderKind.OLLAMA])
@pytest.mark.parametrize("comes_back", [True, False])
async def test_one_that_finds_a_runner_gone_asks_the_one_that_takes_its_place(
    kind: ProviderKind, comes_back: bool
) -> None:
    """The first that was queued at a killed runner found its port closed before anybody missed it."""
    async with routed([OK]) as site:
        valet = site.valet
        live = valet.candidates[0][1]
        valet.candidates = [("engine0", "http://127.0.0.1:9")]
        valet.upstream_fields = {"kind": kind}
        asking = asyncio.create_task(site.call("POST", CHAT, ASK))
        await asyncio.sleep(0.1)
        if comes_back:
            valet.candidates = [("engine0", live)]
        reply = await asking
        is_ours = kind is ProviderKind.LLAMA_SERVER
        assert reply.status == (200 if is_ours and comes_back else 502)
        assert valet.exchanged[-1].attempts == (2 if is_ours else 1)
        assert valet.in_flight == 0


@pytest.mark.parametrize(
    ("kind", "status"), [(ProviderKind.LLAMA_SERVER, 200), (ProviderKind.OPENAI, 502)], ids=["ours", "theirs"]
)
async def test_a_question_sent_into_the_end_of_a_runner_is_put_again(kind: ProviderKind, status: int) -> None:
    async with routed([[None], OK]) as site:
        site.valet.upstream_fields = {"kind": kind}
        assert (await site.call("POST", CHAT, ASK)).status == status


async def test_a_question_that_may_have_brought_a_runner_down_is_not_put_again() -> None:
    asked = 0

    async def falls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        await asyncio.sleep(0.3)
        writer.close()

    server = await asyncio.start_server(falls, "127.0.0.1", 0)
    valet = FakeValet()
    valet.candidates = [("local", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")]
    valet.upstream_fields = {"kind": ProviderKind.LLAMA_SERVER}
    async with router_site(valet, relay=Relay(valet)) as site:
        assert (await site.call("POST", CHAT, ASK)).status == 502
    server.close()
    assert asked == 1
