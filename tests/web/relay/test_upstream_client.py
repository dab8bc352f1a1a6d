"""The client to engines, against real sockets that answer byte for byte."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest

from tests.web.raw_engine import RawEngine, raw_engine
from tray_valet.core.errors import ProviderUnreachable, UpstreamFailed
from tray_valet.web.relay.upstream_client import LocalClient, UpstreamHead, UpstreamRequest, address_of

WHOLE = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
)
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall there is"
WITH_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + WHOLE


def ask(engine: RawEngine, **more: object) -> UpstreamRequest:
    """`more`: fields of the request or of its head."""
    fields = {"base_url": engine.url, "target": b"/v1/x?a=1", "headers": ((b"a", b"b"),)}
    head = {name: more.pop(name, value) for name, value in {**fields, "method": b"POST"}.items()}
    asked = {"body": b"{}", "who": "engine", **more}
    return UpstreamRequest(head=UpstreamHead(**head), **asked)  # type: ignore[arg-type]


@asynccontextmanager
async def client(**options: float) -> AsyncIterator[LocalClient]:
    made = LocalClient(**options)
    try:
        yield made
    finally:
        await made.close()


async def read(made: LocalClient, engine: RawEngine, **more: object) -> tuple[int, bytes]:
    async with asyncio.timeout(30):
        response = await made.open(ask(engine, **more))
        try:
            pieces = []
            while (chunk := await response.read_chunk()) is not None:
                pieces.append(chunk)
            assert response.is_ended
            return response.status, b"".join(pieces)
        finally:
            response.close()


def cut(data: bytes, *places: int) -> list[bytes | None]:
    ends = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(ends) if a < b]


async def test_the_request_is_written_as_http_wants_it() -> None:
    async with raw_engine([WHOLE]) as engine, client() as made:
        await read(made, engine)
        head, _, body = engine.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /v1/x?a=1 HTTP/1.1"
        assert b"host: " + engine.url.removeprefix("http://").encode() in lines
        assert b"content-length: 2" in lines
        assert b"a: b" in lines
        assert body == b"{}"


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED, WITH_INTERIM], ids=["length", "chunked", "interim"])
async def test_an_answer_cut_at_any_byte_is_the_same(answer: bytes) -> None:
    expected = b"abcde" if answer is CHUNKED else b'{"a":1}'
    async with client() as made:
        for place in range(1, len(answer)):
            async with raw_engine(cut(answer, place)) as engine:
                assert await read(made, engine) == (200, expected), place


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED, WITH_INTERIM], ids=["length", "chunked", "interim"])
async def test_an_answer_that_ends_too_early_at_any_byte_is_a_failure(answer: bytes) -> None:
    async with client() as made:
        for place in range(len(answer)):
            async with raw_engine([answer[:place], None]) as engine:
                with pytest.raises(UpstreamFailed):
                    await read(made, engine)


async def test_what_has_neither_length_nor_chunks_ends_with_the_connection() -> None:
    async with raw_engine([UNTIL_CLOSED], closes=True) as engine, client() as made:
        assert await read(made, engine) == (200, b"all there is")
        assert await read(made, engine) == (200, b"all there is")
        assert engine.connections == 2


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
    ],
)
async def test_answers_without_a_body_end_with_their_head(answer: bytes, status: int) -> None:
    async with raw_engine([answer]) as engine, client() as made:
        assert await read(made, engine) == (status, b"")


async def test_the_answer_to_head_has_no_body_whatever_its_length() -> None:
    async with raw_engine([b"HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n"]) as engine, client() as made:
        assert await read(made, engine, method=b"HEAD") == (200, b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A:\r\n" * 300 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 999999 Odd\r\n\r\n",
    ],
    ids=["ssh", "negative", "two lengths", "bad chunk", "upgrade", "huge head", "many lines", "bad status"],
)
async def test_what_is_not_http_is_a_failure(answer: bytes) -> None:
    async with raw_engine([answer]) as engine, client() as made:
        with pytest.raises(UpstreamFailed):
            await read(made, engine)
        assert made.connections == 0


async def test_garbage_never_hangs_and_never_raises_anything_else() -> None:
    dice = random.Random(20261121)
    async with client() as made:
        for _ in range(150):
            noise = bytearray(dice.choice((WHOLE, CHUNKED, UNTIL_CLOSED)))
            for _ in range(dice.randrange(1, 6)):
                noise[dice.randrange(len(noise))] = dice.randrange(256)
            async with raw_engine(cut(bytes(noise), dice.randrange(1, len(noise))), closes=True) as engine:
                try:
                    status, _ = await read(made, engine)
                    assert 100 <= status <= 999
                except UpstreamFailed:
                    pass


async def test_a_connection_is_used_again_and_closed_when_it_was_idle_for_long() -> None:
    async with raw_engine([WHOLE]) as engine, client(idle_s=0.2) as made:
        for _ in range(3):
            assert await read(made, engine) == (200, b'{"a":1}')
        assert (engine.connections, made.connections) == (1, 1)
        async with asyncio.timeout(30):
            while made.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await read(made, engine)
        assert engine.connections == 2


async def test_a_connection_that_the_engine_wants_closed_is_not_used_again() -> None:
    answer = WHOLE.replace(b"\r\nContent-L", b"\r\nConnection: close\r\nContent-L")
    async with raw_engine([answer]) as engine, client() as made:
        await read(made, engine)
        await read(made, engine)
        assert engine.connections == 2


async def test_a_stale_connection_is_replaced_once() -> None:
    async with raw_engine([WHOLE], [None], [WHOLE]) as engine, client() as made:
        assert (await read(made, engine))[0] == 200
        assert (await read(made, engine))[0] == 200  # closed before a byte: asked again on a fresh one
        assert (engine.connections, len(engine.requests)) == (2, 3)


async def test_a_fresh_connection_that_breaks_off_is_not_tried_again() -> None:
    async with raw_engine([None]) as engine, client() as made:
        with pytest.raises(UpstreamFailed, match="before it answered"):
            await read(made, engine)
        assert len(engine.requests) == 1


async def test_a_used_connection_that_breaks_off_in_an_answer_is_not_tried_again() -> None:
    async with raw_engine([WHOLE], [WHOLE[:20], None]) as engine, client() as made:
        await read(made, engine)
        with pytest.raises(UpstreamFailed):
            await read(made, engine)
        assert len(engine.requests) == 2


async def test_bytes_that_nobody_asked_for_are_never_the_next_answer() -> None:
    async with raw_engine([WHOLE + WHOLE.replace(b"1", b"2")]) as engine, client() as made:
        for _ in range(3):
            assert (await read(made, engine))[1] == b'{"a":1}'
        assert engine.connections == 3


async def test_an_engine_has_to_wait_for_a_reader_that_does_not_read() -> None:
    size = 32 * 2**20
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    piece = b"x" * 65536
    async with raw_engine([head, *[piece] * (size // 65536)]) as engine, client() as made:
        response = await made.open(ask(engine))
        await asyncio.sleep(0.3)
        assert sum(map(len, response._chunks)) < 2**20  # type: ignore[attr-defined]
        total = 0
        while (chunk := await response.read_chunk()) is not None:
            total += len(chunk)
        response.close()
        assert total == size


async def test_an_answer_that_is_given_up_closes_its_connection() -> None:
    async with raw_engine([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"]) as engine, client() as made:
        response = await made.open(ask(engine))
        response.close()
        await asyncio.wait_for(engine.left.wait(), 30)
        assert made.connections == 0


async def test_a_request_that_is_cancelled_closes_its_connection() -> None:
    async with raw_engine([b""]) as engine, client() as made:
        asking = asyncio.create_task(read(made, engine))
        async with asyncio.timeout(30):
            while not engine.requests:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait_for(engine.left.wait(), 30)


async def test_nothing_there_and_no_such_name_are_unreachable() -> None:
    async with raw_engine([WHOLE]) as engine:
        pass
    async with client() as made:
        with pytest.raises(ProviderUnreachable, match="engine does not answer"):
            await read(made, engine)
        with pytest.raises(ProviderUnreachable):
            await made.open(ask(engine, base_url="http://no-such-name.invalid"))


@pytest.mark.parametrize("url", ["https://a", "http://", "http://a:99999", "ftp://a", "a:1", "http://é", ""])
def test_what_is_no_address_is_unreachable(url: str) -> None:
    with pytest.raises(ProviderUnreachable):
        address_of(url)


def test_an_address_may_have_a_prefix_and_be_ipv6() -> None:
    assert address_of("http://[::1]:8080/api/") == ("::1", 8080, b"[::1]:8080", b"/api")
    assert address_of("http://box.local") == ("box.local", 80, b"box.local", b"")


async def test_a_head_without_an_end_is_given_up() -> None:
    line = b"X: " + b"y" * 1000 + b"\r\n"
    async with raw_engine([b"HTTP/1.1 200 OK\r\n", *[line * 10] * 100, b""]) as engine, client() as made:
        with pytest.raises(UpstreamFailed, match="does not come to the end"):
            await read(made, engine)
        assert made.connections == 0


@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
def test_a_connect_that_is_cancelled_leaves_no_connection(loop_kind: str) -> None:
    """uvloop closes one that was made in that very moment, and tells nobody."""
    factory = asyncio.new_event_loop
    if loop_kind == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    async def cancelled_after_every_number_of_turns() -> None:
        async with raw_engine([b""]) as engine, asyncio.timeout(30):
            client = LocalClient()
            for turns in list(range(12)) * 5:
                connecting = asyncio.ensure_future(client._connect(address_of(engine.url), "the engine"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                connecting.cancel()
                with suppress(asyncio.CancelledError):
                    (await connecting).abort()
            while client.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await client.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(cancelled_after_every_number_of_turns())
