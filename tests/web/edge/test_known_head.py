"""Heads that come again: taken for the same only where they mean the same, and checked like every other."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.web.wire import router_site, serving
from tray_valet.core.config import Settings
from tray_valet.web.edge.answer_head import answer_head
from tray_valet.web.edge.guard import Guard
from tray_valet.web.edge.keys import RouterKeys
from tray_valet.web.edge.known_head import KnownHead, known_head
from tray_valet.web.edge.policies import router_policy
from tray_valet.web.edge.requests import ANSWER_KEY

HEAD = b"POST /a?b=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nX-A: b\r\n\r\n"


def _scope(data: bytes, version: str = "1.1") -> dict[str, Any]:
    lines = data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    pairs = [line.partition(b":") for line in lines]
    headers = [(name.lower(), value.strip()) for name, _, value in pairs]
    return {"http_version": version, "headers": headers, "path": "/a", "state": {}}


def _known(data: bytes, **scope: Any) -> KnownHead | None:
    return known_head(data, _scope(data, **scope))


@pytest.mark.parametrize("body", [b"", b"x", b"x" * 1234, b"\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"])
def test_another_body_under_the_same_head_is_found(body: bytes) -> None:
    known = _known(HEAD % 3 + b"abc")
    assert known is not None
    assert known.body_in(HEAD % len(body) + body) == body
    scope = known.scope_for(len(body))
    assert (b"content-length", b"%d" % len(body)) in scope["headers"]
    assert [name for name, _ in scope["headers"]] == [b"host", b"content-length", b"x-a"]


@pytest.mark.parametrize(
    "data",
    [
        HEAD % 3 + b"ab",  # not whole
        HEAD % 3 + b"abcd",  # and the beginning of another
        HEAD % 3 + b"abc" + HEAD % 3 + b"abc",
        (HEAD % 3).replace(b"X-A: b", b"X-A: c") + b"abc",
        (HEAD % 3).replace(b"/a?", b"/A?") + b"abc",
        (HEAD % 3).replace(b"X-A", b"Transfer-Encoding: chunked\r\nX-A") + b"abc",
        (HEAD % 3).replace(b" 3", b" +3") + b"abc",
        (HEAD % 3).replace(b" 3", b" 0x3") + b"abc",
        (HEAD % 3).replace(b" 3", b" ") + b"abc",
        (HEAD % 3).replace(b" 3", b" 3, 3") + b"abc",
        (HEAD % 3).replace(b" 3", b" 3\r\nContent-Length: 3") + b"abc",
        (HEAD % 3).replace(b" 3", b" \xb3") + b"abc",
        (HEAD % 3).replace(b" 3", b" 00000000003") + b"abc",
        (HEAD % 3).replace(b"\r\n", b"\n") + b"abc",
        b"\r\n" + HEAD % 3 + b"abc",
        (HEAD % 3)[:30],
        b"",
    ],
)
def test_whatever_differs_goes_to_the_parser(data: bytes) -> None:
    known = _known(HEAD % 5 + b"01234")
    assert known is not None
    assert known.body_in(data) is None


@pytest.mark.parametrize(
    "line",
    [
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Trailer: x",
        b"Upgrade: h2c",
        b"Connection: close",
        b"Connection: upgrade",
        b"Connection: x-a",
        b"Content-Length: 3",
        b"X-Filler: " + b"x" * 9000,
    ],
)
def test_heads_that_are_more_than_their_bytes_are_not_remembered(line: bytes) -> None:
    assert _known((HEAD % 3).replace(b"X-A: b", line) + b"abc") is None


def test_a_head_is_remembered_only_from_one_whole_request() -> None:
    assert _known(HEAD % 3 + b"ab") is None
    assert _known(HEAD % 3 + b"abc" + HEAD % 3) is None
    assert _known(HEAD % 3 + b"abc", version="1.0") is None
    assert _known(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") is None


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    answer = scope[ANSWER_KEY]
    told = b"|".join([scope["path"].encode(), scope["query_string"], dict(scope["headers"])[b"x-a"], body])
    answer.start(200, answer_head(()), len(told))
    answer.writer.write(told, has_more=False)


async def _told(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head.split(b" ", 2)[1] + b" " + await reader.readexactly(int(length.partition(b":")[2]))


async def test_one_connection_with_heads_that_change_and_come_again() -> None:
    settings = Settings()
    policy = router_policy(settings)
    guard = Guard(
        _echo, policy=lambda: policy, keys=RouterKeys(lambda: settings, resolve_secret=lambda name: None)
    )
    kind = b"Content-Type: application/json\r\nX-A: %b\r\n"
    async with serving(guard) as server, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def ask(path: bytes, value: bytes, body: bytes, host: bytes = b"localhost") -> bytes:
            head = b"POST %b HTTP/1.1\r\nHost: %b\r\n" % (path, host)
            writer.write(head + kind % value + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            return await _told(reader)

        for number in range(3):
            body = b'"%d"' % 10**number
            assert await ask(b"/a?q=1", b"b", body) == b"200 /a|q=1|b|" + body
        assert await ask(b"/a?q=2", b"b", b"1") == b"200 /a|q=2|b|1"
        assert await ask(b"/a?q=1", b"c", b"2") == b"200 /a|q=1|c|2"
        assert await ask(b"/a?q=1", b"c", b"3333") == b"200 /a|q=1|c|3333"
        # The same head, its body a moment later, and then two at once.
        request = (
            b"POST /a?q=1 HTTP/1.1\r\nHost: localhost\r\n" + kind % b"c" + b"Content-Length: 4\r\n\r\n4444"
        )
        writer.write(request[:-2])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(request[-2:])
        assert await _told(reader) == b"200 /a|q=1|c|4444"
        writer.write(request + request)
        assert await _told(reader) == b"200 /a|q=1|c|4444"
        assert await _told(reader) == b"200 /a|q=1|c|4444"
        # One that asks whether it may send, and then the known one again.
        writer.write(request)
        assert await _told(reader) == b"200 /a|q=1|c|4444"
        asks = request[:-4].replace(b"X-A", b"Expect: 100-continue\r\nX-A")
        writer.write(asks)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"5555")
        assert await _told(reader) == b"200 /a|q=1|c|5555"
        writer.write(request)
        assert await _told(reader) == b"200 /a|q=1|c|4444"
        # Settings hold from the next request on, for known heads too.
        policy = msgspec.structs.replace(policy, max_body_bytes=3)
        writer.write(request)
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        writer.close()


async def test_a_head_that_is_refused_is_refused_every_time() -> None:
    async with router_site() as site, asyncio.timeout(20):
        for host in ("evil.example", "localhost"):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
            body = b'{"model": "nobody"}'
            for _ in range(3):
                writer.write(
                    b"POST /v1/chat/completions HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (host.encode(), len(body), body)
                )
                status = (await reader.readline()).split(b" ")[1]
                assert status == (b"400" if host == "evil.example" else b"404")
                if host == "evil.example":
                    break  # the connection ends with such a refusal
                rest = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in rest.lower().split(b"\r\n") if b"content-length" in line)
                await reader.readexactly(int(length.partition(b":")[2]))
            writer.close()


class _AtOnce:
    """An app that answers without a task."""

    def __init__(self) -> None:
        self.answered = 0

    def ask_now(self, scope: Any, body: bytes, client: str, known: Any) -> bytes:
        return body

    def expect(self, begun: bytes, answer: Any, work_on: Any, on_over: Any) -> None:
        self.answered += 1
        assert answer.body == begun
        answer.start(200, answer_head(()), len(answer.body))
        answer.writer.write(answer.body, has_more=False)
        on_over()

    def drop(self, begun: bytes) -> None:
        raise AssertionError("nothing is to be taken back")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("a task is not needed")


@pytest.mark.parametrize("status", [b"400", b"401"])
async def test_what_settings_no_longer_allow_is_refused_for_known_heads_too(status: bytes) -> None:
    settings = Settings()
    policy = router_policy(settings)
    app = _AtOnce()
    keys = RouterKeys(lambda: settings, resolve_secret=lambda name: "secret")
    guard = Guard(app, policy=lambda: policy, keys=keys)
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request += b'Content-Length: 3\r\n\r\n"1"'
    async with serving(guard) as server, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(3):
            writer.write(request)
            assert await _told(reader) == b'200 "1"'
        if status == b"400":
            policy = msgspec.structs.replace(policy, hosts=frozenset())
        else:
            router = msgspec.structs.replace(settings.router, api_keys={"me": "keyring:me"})
            settings = msgspec.structs.replace(settings, router=router)
        writer.write(request)
        assert (await _told(reader)).startswith(status)
        assert app.answered == 3
        writer.close()
