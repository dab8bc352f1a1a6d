"""Connections: heads in pieces, times that run out, bodies in pieces, several requests on one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from tests.web.wire import serving
from tray_valet.core.config import Settings
from tray_valet.web.edge.answer_cycle import AnswerCycle
from tray_valet.web.edge.answer_head import answer_head
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import RouterKeys
from tray_valet.web.edge.policies import router_policy
from tray_valet.web.edge.requests import ANSWER_KEY
from tray_valet.web.edge.server import WebServer

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    answer = scope[ANSWER_KEY]
    answer.start(200, answer_head(()), len(body))
    answer.writer.write(body, has_more=False)


def _guarded(app: Any, **policy: Any) -> Guard:
    settings = Settings()
    whole = msgspec.structs.replace(router_policy(settings), **policy)
    keys = RouterKeys(lambda: settings, resolve_secret=lambda name: None)
    return Guard(app, policy=lambda: whole, keys=keys)


@asynccontextmanager
async def _connected(server: WebServer) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(100):  # Python's collector may have much to look through
            yield reader, writer
    finally:
        writer.close()


def _request(body: bytes, extra: bytes = b"") -> bytes:
    return HEAD + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One answer's head and body; its length must be declared."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    return head, await reader.readexactly(int(fields[b"content-length"]))


async def test_a_head_in_single_bytes_is_taken() -> None:
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        for byte in _request(b'"x"'):
            writer.write(bytes([byte]))
            await writer.drain()
        head, body = await _answer(reader)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == b'"x"'


@pytest.mark.parametrize("line", [b"X-Filler: ", b"X-Filler"], ids=["value", "name"])
async def test_a_header_without_an_end_is_431(line: bytes) -> None:
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        writer.write(HEAD + line)
        for _ in range(40):
            writer.write(b"x" * 8192)
            await asyncio.sleep(0)
        assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")


async def test_many_headers_in_pieces_are_431() -> None:
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        writer.write(HEAD)
        for _ in range(40):
            writer.write(b"X-Filler: " + b"x" * 2000 + b"\r\n")
            await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")


async def test_what_came_before_a_head_does_not_count_as_head() -> None:
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        large, small = b'"' + b"x" * 200_000 + b'"', b'"y"'
        writer.write(_request(large) + _request(small)[:40])
        assert (await _answer(reader))[1] == large
        writer.write(_request(small)[40:])
        assert (await _answer(reader))[1] == small


async def test_requests_sent_at_once_are_answered_in_turn_with_their_own_bodies() -> None:
    bodies = [b'"%d"' % number for number in range(20)]
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        writer.write(b"".join(map(_request, bodies)))
        assert [(await _answer(reader))[1] for _ in bodies] == bodies


async def test_a_body_of_megabytes_in_odd_pieces_arrives_whole() -> None:
    body = b'"' + bytes(range(65, 91)) * 200_000 + b'"'
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        request, sent = _request(body), 0
        for size in (70, 1, 300_000, 65_536, 65_537, 1_000_000):
            writer.write(request[sent : sent + size])
            sent += size
            await writer.drain()
        writer.write(request[sent:])
        assert (await _answer(reader))[1] == body
        writer.write(_request(b'"again"'))
        assert (await _answer(reader))[1] == b'"again"'


async def test_a_client_that_asks_whether_it_may_send_is_told() -> None:
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        writer.write(_request(b"", b"Expect: 100-continue\r\n").replace(b"Length: 0", b"Length: 3"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'"x"')
        assert (await _answer(reader))[1] == b'"x"'


async def test_a_body_without_a_length_is_kept_up_to_the_limit_only() -> None:
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    async with serving(_guarded(_echo, max_body_bytes=1_000_000)) as server:
        for chunks, status in ((15, 200), (16, 413)):
            async with _connected(server) as (reader, writer):
                writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
                for _ in range(chunks):
                    writer.write(chunk)
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 %d " % status)


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tray_valet.web.edge.server._KEEP_ALIVE_S", 0.1)
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        for _ in range(2):
            writer.write(_request(b'"x"'))
            await _answer(reader)
        assert await reader.read() == b""


async def test_a_second_head_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tray_valet.web.edge.protocol.HEAD_TIMEOUT_S", 0.5)
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        writer.write(_request(b'"x"'))
        await _answer(reader)
        writer.write(HEAD)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


async def test_an_answer_may_take_longer_than_a_head_and_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tray_valet.web.edge.protocol.HEAD_TIMEOUT_S", 0.5)
    monkeypatch.setattr("tray_valet.web.edge.server._KEEP_ALIVE_S", 0.05)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.0)
        await _echo(scope, receive, send)

    async with serving(_guarded(slow)) as server, _connected(server) as (reader, writer):
        writer.write(_request(b'"x"'))
        assert (await _answer(reader))[1] == b'"x"'


async def test_a_held_head_has_the_headers_of_every_answer_once() -> None:
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        writer.write(_request(b'"x"'))
        head, _ = await _answer(reader)
        names = [line.split(b":")[0] for line in head.split(b"\r\n")[1:-2]]
        assert len(set(names)) == len(names)
        assert {b"date", b"vary", b"cache-control", b"content-security-policy", b"x-frame-options"} < set(
            names
        )


async def test_answered_requests_leave_no_cycles_to_python_s_collector() -> None:
    async with serving(_guarded(_echo)) as server, _connected(server) as (reader, writer):
        gc.collect()
        gc.disable()
        before = _cycles()
        try:
            for _ in range(20):
                writer.write(_request(b'"x"'))
                await _answer(reader)
            left = _cycles() - before
        finally:
            gc.enable()
        assert left <= 2  # the connection keeps its latest


def _cycles() -> int:
    return sum(isinstance(thing, AnswerCycle) for thing in gc.get_objects())
