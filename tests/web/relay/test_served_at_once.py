"""Requests that find everything ready: no task serves them, and whatever comes up a task takes over."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.web.fake_valet import FakeValet
from tests.web.raw_engine import RawEngine, raw_engine
from tests.web.wire import Site, router_site
from tray_valet.core.errors import Paused
from tray_valet.core.traffic import Outcome
from tray_valet.web.edge.answer_cycle import AnswerCycle
from tray_valet.web.relay.relay import Relay

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _whole(body: bytes, status: str = "200 OK") -> bytes:
    kind = "Content-Type: application/json\r\n"
    return f"HTTP/1.1 {status}\r\n{kind}Content-Length: {len(body)}\r\n\r\n".encode() + body


EVENT = b'data: {"choices":[]}\n\n'
ANSWER = _whole(b'{"choices":[]}')
STREAM: list[bytes | None] = [EVENTS, _chunk(EVENT), _chunk(EVENT), END]


class Place:
    """A router with one engine, and one client's connection to it."""

    def __init__(self, site: Site, engine: RawEngine, relay: Relay, tasks: list[object]) -> None:
        self.site, self.engine, self.relay, self.tasks = site, engine, relay, tasks
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    def request(self, **more: Any) -> bytes:
        body = {"model": "llama3", "messages": [], **more}
        path = "/v1/chat/completions"
        return self.site.request_bytes("POST", path, body, {"Connection": "keep-alive"})

    async def answer(self) -> tuple[int, bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ")[1])
        if b"transfer-encoding: chunked" not in head:
            length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            return status, await self.reader.readexactly(int(length.partition(b":")[2]))
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return status, body

    async def settled(self) -> None:
        """Nothing of any request is left."""
        async with asyncio.timeout(20):
            while self.relay._open or self.site.valet.in_flight or self.relay._silences._watched:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def _place(
    *answers: list[bytes | None], monkeypatch: pytest.MonkeyPatch, closes: bool = False
) -> AsyncIterator[Place]:
    """One request has been answered, by a task; the connections to it and to the engine are open."""
    valet = FakeValet()
    relay = Relay(valet)
    tasks: list[object] = []
    work = relay._work

    async def noted(*args: Any) -> None:
        tasks.append(args)
        await work(*args)

    monkeypatch.setattr(relay, "_work", noted)
    async with raw_engine([ANSWER], *answers, closes=closes) as engine, asyncio.timeout(60):
        valet.candidates = [("engine", engine.url)]
        async with router_site(valet, relay=relay) as site:
            place = Place(site, engine, relay, tasks)
            place.reader, place.writer = await asyncio.open_connection("127.0.0.1", site.server.port)
            place.writer.write(place.request())
            assert (await place.answer())[0] == 200
            await place.settled()
            tasks.clear()
            valet.exchanged.clear()
            yield place
            place.writer.close()


async def test_no_task_works_on_whole_answers_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _place([ANSWER], STREAM, [ANSWER], monkeypatch=monkeypatch) as place:
        for number in range(3):
            place.writer.write(place.request(stream=number == 1))
            status, body = await place.answer()
            assert (status, body) == (200, EVENT + EVENT if number == 1 else b'{"choices":[]}')
        await place.settled()
        assert place.tasks == []
        assert [r.outcome for r in place.site.valet.exchanged] == [Outcome.ANSWERED] * 3
        assert [r.is_stream for r in place.site.valet.exchanged] == [False, True, False]
        assert place.engine.connections == 1


async def test_requests_sent_at_once_are_answered_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _place([ANSWER], STREAM, [ANSWER], [ANSWER], monkeypatch=monkeypatch) as place:
        bodies = [place.request(), place.request(stream=True), place.request(), place.request()]
        place.writer.write(b"".join(bodies))
        answers = [await place.answer() for _ in bodies]
        assert [body for _, body in answers] == [
            b'{"choices":[]}',
            EVENT + EVENT,
            b'{"choices":[]}',
            b'{"choices":[]}',
        ]
        await place.settled()
        assert [r.outcome for r in place.site.valet.exchanged] == [Outcome.ANSWERED] * 4


async def test_garbage_behind_a_second_request_is_no_word_in_the_middle_of_the_firsts_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with _place([EVENTS, _chunk(EVENT), b""], monkeypatch=monkeypatch) as place:
        place.writer.write(place.request(stream=True))
        await place.reader.readuntil(EVENT)
        place.writer.write(place.request() + b"gar bage\r\n\r\n")
        rest = b""
        with suppress(ConnectionError):
            rest = await asyncio.wait_for(place.reader.read(), 20)
        assert b"HTTP" not in rest
        await asyncio.wait_for(place.engine.left.wait(), 20)
        await place.settled()
        assert place.site.valet.exchanged[-1].outcome is Outcome.CLIENT_LEFT


@pytest.mark.parametrize("number", [1, 2])
async def test_a_client_that_leaves_ends_the_request_it_waits_for(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _place([ANSWER], [b""], monkeypatch=monkeypatch) as place:
        if number == 1:
            place.writer.write(place.request())
            await place.answer()
            place.writer.write(place.request())
        else:
            place.writer.write(place.request() + place.request())
            await place.answer()
        async with asyncio.timeout(20):
            while len(place.engine.requests) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        place.writer.transport.abort()
        await asyncio.wait_for(place.engine.left.wait(), 20)
        await place.settled()
        assert place.site.valet.exchanged[-1].outcome is Outcome.CLIENT_LEFT


async def test_a_connection_that_was_closed_meanwhile_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _place([ANSWER], monkeypatch=monkeypatch) as place:
        for connection in place.relay._local._all:  # type: ignore[attr-defined]
            connection._transport.get_extra_info("socket").shutdown(
                0
            )  # as if the engine's FIN were just coming
        place.writer.write(place.request())
        assert (await place.answer())[0] == 200
        await place.settled()
        assert place.site.valet.exchanged[-1].attempts == 1


@pytest.mark.parametrize(
    ("answer", "status", "outcome"),
    [
        ([_whole(b'{"error":{"message":"no"}}', "400 Bad Request")], 400, Outcome.ANSWERED),
        ([_whole(b'{"error":{"message":"no"}}', "500 Oops")], 502, Outcome.FAILED),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", None], 502, Outcome.FAILED),
        ([b"nonsense\r\n\r\n"], 502, Outcome.FAILED),
    ],
)
async def test_what_is_to_be_judged_a_task_judges(
    answer: list[bytes | None], status: int, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _place(answer, [ANSWER], monkeypatch=monkeypatch) as place:
        place.writer.write(place.request())
        assert (await place.answer())[0] == status
        await place.settled()
        assert [r.outcome for r in place.site.valet.exchanged] == [outcome]
        assert len(place.tasks) == 1
        place.writer.write(place.request())
        assert await place.answer() == (200, b'{"choices":[]}')


async def test_a_stream_that_breaks_off_ends_with_an_error_event(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _place([EVENTS, _chunk(EVENT), None], monkeypatch=monkeypatch) as place:
        place.writer.write(place.request(stream=True))
        status, body = await place.answer()
        assert status == 200
        assert body.startswith(EVENT)
        assert json.loads(body[len(EVENT) :].removeprefix(b"data: "))["error"]["code"] == "upstream_failed"
        await place.settled()
        assert place.site.valet.exchanged[-1].outcome is Outcome.CUT


@pytest.mark.parametrize("begun", [[b""], [EVENTS, _chunk(EVENT)]], ids=["before", "in"])
async def test_a_game_ends_it(begun: list[bytes | None], monkeypatch: pytest.MonkeyPatch) -> None:
    async with _place(begun, monkeypatch=monkeypatch) as place:
        place.writer.write(place.request(stream=True))
        async with asyncio.timeout(20):
            while len(place.engine.requests) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        if begun != [b""]:
            await place.reader.readuntil(EVENT)
        place.site.valet.start_game()
        place.site.valet.leases[-1].revoke(Paused("A game has begun.", retry_after_s=3.0))
        if begun == [b""]:
            assert (await place.answer())[0] == 503
        else:
            rest = await place.reader.readuntil(END)
            assert b'"code":"models_paused"' in rest.replace(b" ", b"") or b"paused" in rest
        await place.settled()
        await asyncio.wait_for(place.engine.left.wait(), 20)


async def test_a_client_that_does_not_read_holds_the_engine_back_and_gets_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = b"data: " + b"x" * 60_000 + b"\n\n"
    pieces: list[bytes | None] = [EVENTS, *[_chunk(event)] * 400, END]
    async with _place(pieces, monkeypatch=monkeypatch) as place:
        place.writer.write(place.request(stream=True))
        await place.reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.5)  # the streams between fill up
        connection = next(iter(place.relay._local._all))  # type: ignore[attr-defined]
        assert sum(map(len, connection._chunks)) < 2**20
        total = b""
        while not total.endswith(END):
            total += await place.reader.read(2**20)
        assert total.count(b"data: ") == 400
        await place.settled()
        assert place.site.valet.exchanged[-1].outcome is Outcome.ANSWERED


async def test_a_server_that_stops_ends_it_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _place([EVENTS, _chunk(EVENT)], monkeypatch=monkeypatch) as place:
        place.writer.write(place.request(stream=True))
        await place.reader.readuntil(EVENT)
        await place.site.server.stop(grace_s=5)
        assert b"shutting down" in await place.reader.read()
        await place.settled()


_RELAY, _GUARD = "tray_valet.web.relay.", "tray_valet.web.edge.guard."


def _at(where: str) -> Any:
    """What is at `module.name` or `module.Class.name`."""
    place, _, name = where.rpartition(".")
    is_class = place.rpartition(".")[2][0].isupper()
    return getattr(_at(place) if is_class else importlib.import_module(place), name)


@pytest.mark.parametrize(
    "where",
    [
        _RELAY + "asking.headers_upstream",
        _RELAY + "upstream_client._send",
        _GUARD + "Answering",
        _RELAY + "relay.Call",
        _RELAY + "call.Delivery",
        _RELAY + "relay.Attempt",
        _RELAY + "attempt.Exchange",
        _RELAY + "attempt.Exchange.begin",
        _RELAY + "ends.SilenceWatch.watch",
    ],
)
async def test_a_mistake_of_ours_leaves_nothing_behind(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the question is out, or after it; a task tries again."""
    mistakes = 0
    async with _place(*[[ANSWER]] * 4, monkeypatch=monkeypatch) as place:
        real = _at(where)

        def once(*args: Any, **named: Any) -> Any:
            nonlocal mistakes
            mistakes += 1
            return 1 / 0 if mistakes == 1 else real(*args, **named)

        with monkeypatch.context() as broken:
            broken.setattr(where, once)
            # A head that did not come before: what is made of known ones is not made again.
            place.writer.write(place.request().replace(b"\r\nHost", b"\r\nX-Other: 1\r\nHost", 1))
            assert (await place.answer())[0] == 200
            await place.settled()
        assert mistakes
        assert len(place.tasks) == 1
        place.writer.write(place.request())
        assert (await place.answer())[0] == 200
        await place.settled()
        local: Any = place.relay._local
        assert local.connections == sum(len(idle) for idle in local._idle.values()) == 1


@pytest.mark.parametrize("kind", ["same", "in two pieces", "differs", "pipelined", "left to a task"])
async def test_nothing_of_them_waits_for_python_s_collector(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _place([ANSWER], monkeypatch=monkeypatch) as place:
        if kind == "left to a task":
            monkeypatch.setattr("tray_valet.web.relay.exchange.Exchange.begin", lambda *_: False)
        gc.collect()
        gc.disable()
        before = sum(isinstance(thing, AnswerCycle) for thing in gc.get_objects())
        try:
            for number in range(20):
                request = place.request()
                if kind == "in two pieces":
                    place.writer.write(request[:-10])
                    await asyncio.sleep(0.01)
                    place.writer.write(request[-10:])
                elif kind == "differs":
                    other = b"\r\nX-Request-Id: %d\r\nHost" % number
                    place.writer.write(request.replace(b"\r\nHost", other, 1))
                elif kind == "pipelined":
                    place.writer.write(request + request)
                    await place.answer()
                else:
                    place.writer.write(request)
                await place.answer()
            await place.settled()
            left = sum(isinstance(thing, AnswerCycle) for thing in gc.get_objects()) - before
        finally:
            gc.enable()
        assert left <= 1
        if kind in ("same", "differs"):
            assert place.tasks == []


async def test_a_stream_leaves_nothing_for_the_collector_either(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _place(STREAM, monkeypatch=monkeypatch) as place:
        gc.collect()
        gc.disable()
        before = sum(isinstance(thing, AnswerCycle) for thing in gc.get_objects())
        try:
            for _ in range(5):
                place.writer.write(place.request(stream=True))
                await place.answer()
            left = sum(isinstance(thing, AnswerCycle) for thing in gc.get_objects()) - before
        finally:
            gc.enable()
        assert left <= 1
        assert place.tasks == []
