"""Large bodies: whole, at their place between other requests, and given up without loss of order."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest

from tests.web.wire import serving
from tray_valet.core.config import Settings
from tray_valet.web.edge.answer_head import answer_head
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import RouterKeys
from tray_valet.web.edge.large_body import BodyMemory, LargeBody, is_large
from tray_valet.web.edge.policies import router_policy
from tray_valet.web.edge.requests import ANSWER_KEY

MB = 2**20


class Told:
    """What the app was given."""

    def __init__(self) -> None:
        self.kinds: list[type] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.kinds.append(type(body))
        echo = bytes(body[:20]) + b"..." + bytes(body[-20:]) + b" %d %d" % (len(body), sum(body[::997]))
        answer = scope[ANSWER_KEY]
        answer.start(200, answer_head(()), len(echo))
        answer.writer.write(echo, has_more=False)


def _expected(body: bytes) -> bytes:
    return body[:20] + b"..." + body[-20:] + b" %d %d" % (len(body), sum(body[::997]))


def _guarded(app: Any, **policy: Any) -> Guard:
    settings = Settings()
    whole = msgspec.structs.replace(router_policy(settings), **policy)
    keys = RouterKeys(lambda: settings, resolve_secret=lambda name: None)
    return Guard(app, policy=lambda: whole, keys=keys)


def _request(body: bytes) -> bytes:
    return (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    ) + body


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return await reader.readexactly(int(length.partition(b":")[2]))


def _body(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, False), (127 * 1024, False), (128 * 1024, True), (5 * MB, True), (16 * MB, True), (17 * MB, False)],
)
def test_which_bodies_are_large(size: int, expected: bool) -> None:
    assert is_large(size) is expected


async def test_sizes_around_every_limit_arrive_whole_one_after_another_on_one_connection() -> None:
    told = Told()
    sizes = [5 * MB, 10, 128 * 1024 - 1, 128 * 1024, 256 * 1024, 256 * 1024 + 1, MB, 3, 17 * MB, 2 * MB]
    async with serving(_guarded(told)) as server, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for number, size in enumerate(sizes):
            body = _body(size, number)
            writer.write(_request(body))
            assert await _answer(reader) == _expected(body), size
        writer.close()
    assert told.kinds[0] is memoryview
    assert told.kinds[1] is bytes


async def test_requests_written_at_once_keep_their_order_and_bodies() -> None:
    bodies = [_body(size, size) for size in (20, MB, 30, 700_000, 600_000, 40)]
    async with serving(_guarded(Told())) as server, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"".join(map(_request, bodies)))
        for body in bodies:
            assert await _answer(reader) == _expected(body)
        writer.close()


async def test_many_at_once_do_not_see_each_other_s_bytes() -> None:
    async def one(port: int, seed: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(4):
            body = _body(300_000 + 1000 * seed, 100 * seed + number)
            request = _request(body)
            for start in range(0, len(request), 90_000):
                writer.write(request[start : start + 90_000])
                await asyncio.sleep(0)
            assert await _answer(reader) == _expected(body)
        writer.close()

    async with serving(_guarded(Told())) as server, asyncio.timeout(60):
        await asyncio.gather(*(one(server.port, seed) for seed in range(12)))


async def test_one_that_drips_in_is_408() -> None:
    async with serving(_guarded(Told(), body_timeout_s=0.3)) as server, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(_request(_body(MB, 1))[:600_000])
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_client_that_leaves_in_the_middle_is_nobody_s_request() -> None:
    told = Told()
    async with serving(_guarded(told)) as server, asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(_request(_body(MB, 1))[:600_000])
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        while server._state.connections or server._state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert told.kinds == []


async def test_memory_is_used_again_but_not_while_somebody_looks_at_it() -> None:
    memory = BodyMemory()
    first = memory.take(1000)
    view = memoryview(first)[:10]
    memory.give_back(first)
    second = memory.take(1000)
    assert second is not first
    view.release()
    memory.give_back(first)
    assert memory.take(900) is first
    memory.give_back(second)
    assert len(memory.take(2000)) >= 2000


@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
def test_a_connection_that_stays_open_keeps_no_body(loop_kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop's transport remembers who was its protocol: the memory was never used again."""
    factory = asyncio.new_event_loop
    if loop_kind == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    taken: list[bytearray] = []

    class Watched(BodyMemory):
        def take(self, size_bytes: int) -> bytearray:
            taken.append(super().take(size_bytes))
            return taken[-1]

    monkeypatch.setattr("tray_valet.web.edge.protocol.BodyMemory", Watched)

    async def three_on_one_connection() -> None:
        async with serving(_guarded(Told())) as server, asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            for seed in range(3):
                body = _body(MB, seed)
                writer.write(_request(body))
                assert await _answer(reader) == _expected(body)
            writer.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(three_on_one_connection())
    assert len(taken) == 3
    assert taken[0] is taken[1] is taken[2]


class _Connection:
    def __init__(self) -> None:
        self.log: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.log.append(data)

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.log.append(exc)

    def pause_writing(self) -> None:
        self.log.append("pause")

    def resume_writing(self) -> None:
        self.log.append("resume")

    def body_is_whole(self) -> None:
        self.log.append("whole")


class _Transport:
    def set_protocol(self, protocol: object) -> None:
        self.protocol = protocol


def test_what_comes_in_behind_the_body_with_it_is_the_connection_s() -> None:
    """As asyncio does it on Windows: what was read is put into buffers of the protocol that began."""
    connection, transport = _Connection(), _Transport()
    large = LargeBody(connection, transport, bytearray(10), 10)  # type: ignore[arg-type]
    large.begin(b"0123")
    asyncio.protocols._feed_data_to_buffered_proto(large, b"456789POST /")  # type: ignore[attr-defined]
    assert bytes(large.take()) == b"0123456789"
    assert transport.protocol is connection
    assert connection.log == ["whole", b"POST /"]


def test_one_that_is_given_up_goes_to_the_parser_after_all() -> None:
    connection, transport = _Connection(), _Transport()
    large = LargeBody(connection, transport, bytearray(10), 10)  # type: ignore[arg-type]
    large.begin(b"0123")
    asyncio.protocols._feed_data_to_buffered_proto(large, b"45")  # type: ignore[attr-defined]
    large.pause_writing()
    large.resume_writing()
    large.give_up()
    assert connection.log == ["pause", "resume", b"45"]
    assert transport.protocol is connection
