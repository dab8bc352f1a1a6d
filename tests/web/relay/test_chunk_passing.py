"""Streams in chunks of every kind, cut anywhere: the client gets the same bytes, whichever way they took."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, cast

import httptools
import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from tests.web.fake_valet import FakeLease
from tray_valet.core.dialects import OPERATIONS, Framing
from tray_valet.core.errors import UpstreamFailed
from tray_valet.core.models import ModelRef, Upstream
from tray_valet.web.edge.answer_cycle import AnswerCycle
from tray_valet.web.edge.answer_head import AnswerHead
from tray_valet.web.relay.chunk_passing import ChunkPassing
from tray_valet.web.relay.delivery import Delivery
from tray_valet.web.relay.ends import Ends, Silence
from tray_valet.web.relay.passing import Passing
from tray_valet.web.relay.token_tail import TokenTail
from tray_valet.web.relay.upstream_connection import Connection

CHAT, OLLAMA_CHAT = "/v1/chat/completions", "/api/chat"
KINDS = {CHAT: b"text/event-stream", OLLAMA_CHAT: b"application/x-ndjson"}
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Socket:
    """Where bytes go, and what is told of the connection."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.is_closed = True

    close = abort


class _Server:
    """The server's side of the client's connection."""

    def __init__(self, socket: Socket) -> None:
        self.transport: Any = socket
        self.flow: Any = FlowControl(cast(Any, socket))
        self.logger = logging.getLogger(__name__)
        self.body_memory: Any = None

    def on_response_complete(self) -> None: ...

    def give_to_worker(self, cycle: AnswerCycle) -> None: ...

    def listen_for_end(self, cycle: AnswerCycle) -> None: ...


class _Answer:
    """A direct answer of a cycle."""

    def __init__(self, cycle: AnswerCycle) -> None:
        self.body: bytes | memoryview = b""
        self.writer: Any = cycle

    def start(self, status: int, head: AnswerHead, length: int | None) -> None:
        self.writer.start(status, head.lines, length)


class _Pool:
    def note_open(self, connection: Connection) -> None: ...

    def note_lost(self, connection: Connection) -> None: ...

    def keep(self, connection: Connection) -> None: ...


class Stream:
    """One answer between two sockets that are not there; nobody waits for it in a task."""

    def __init__(self, path: str = CHAT, *, is_http_10: bool = False, has_head: bool = True) -> None:
        loop = asyncio.get_running_loop()
        self.client, self.engine = Socket(), Socket()
        self.server = _Server(self.client)
        self.cycle = AnswerCycle(cast(Any, self.server), b"", is_kept=True)
        self.cycle.is_http_10 = is_http_10
        self.delivery = Delivery(_Answer(self.cycle), OPERATIONS[path])
        self.tail = TokenTail()
        self.silence = Silence(Ends(), loop, 60.0, "it")
        lease = FakeLease(ModelRef("engine", "m"), Upstream(base_url="http://engine", model="m"))
        self.passing = Passing(lease, self.delivery, self.tail, self.silence)
        self.connection = Connection(_Pool(), loop, ("", 0))
        self.connection.connection_made(cast(Any, self.engine))
        self.connection.send([b"?"], who="it")
        self.wakes = 0
        self.connection.expect(self.passing, self._wake)
        self.head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: %b\r\n\r\n" % KINDS[path]
        if has_head:
            self.feed(self.head)

    def _wake(self) -> None:
        self.wakes += 1

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.data_received(piece)

    @property
    def body(self) -> bytes:
        """What the client makes of all it got."""
        parts: list[bytes] = []
        parser = httptools.HttpResponseParser(type("_Reader", (), {"on_body": staticmethod(parts.append)})())
        for data in self.client.written:
            parser.feed_data(data)
        return b"".join(parts)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The chunks that were passed on as they were."""
    taken: list[bytes] = []
    take: Callable[[ChunkPassing, bytes], bool] = ChunkPassing.take

    def noted(self: ChunkPassing, data: bytes) -> bool:
        is_taken = take(self, data)
        if is_taken:
            taken.append(data)
        return is_taken

    monkeypatch.setattr(ChunkPassing, "take", noted)
    return taken


@pytest.mark.parametrize(("path", "frame"), [(CHAT, EVENT), (OLLAMA_CHAT, b'{"done":false}\n')])
async def test_whole_chunks_of_whole_frames_pass_as_they_are(
    path: str, frame: bytes, quick: list[bytes]
) -> None:
    stream = Stream(path)
    two = chunk(frame + frame)
    stream.feed(chunk(frame), chunk(frame), two, chunk(frame), b"0\r\n\r\n")
    assert quick == [chunk(frame), two, chunk(frame)]
    assert stream.client.written[1:4] == quick
    assert stream.body == frame * 5
    assert stream.client.written[-1] == b"0\r\n\r\n"
    assert stream.passing.is_over
    assert stream.delivery.answer_bytes == 5 * len(frame)
    assert stream.tail.kept == frame * 5


async def test_an_http_1_0_client_gets_no_chunks(quick: list[bytes]) -> None:
    stream = Stream(is_http_10=True)
    stream.feed(*[chunk(EVENT)] * 3, b"0\r\n\r\n")
    assert quick == []
    assert b"".join(stream.client.written).endswith(b"\r\n\r\n" + EVENT * 3)


async def test_a_client_that_does_not_read_stops_it(quick: list[bytes]) -> None:
    stream = Stream()
    stream.feed(chunk(EVENT), chunk(EVENT))
    stream.server.flow.pause_writing()
    stream.feed(chunk(EVENT), chunk(EVENT))
    assert len(quick) == 1
    assert stream.body == EVENT * 2
    assert stream.wakes == 1, "somebody has to wait for the client"
    assert stream.connection.take() == EVENT * 2


async def test_who_hands_over_to_a_task_gets_nothing_more(quick: list[bytes]) -> None:
    stream = Stream()
    stream.feed(chunk(EVENT), chunk(EVENT))
    stream.connection.leave_to_task()
    stream.feed(chunk(EVENT))
    assert len(quick) == 1
    assert stream.connection.take() == EVENT


async def test_a_client_that_left_is_not_written_to(quick: list[bytes]) -> None:
    stream = Stream()
    stream.feed(chunk(EVENT), chunk(EVENT))
    stream.cycle.disconnected = True
    stream.feed(chunk(EVENT))
    assert len(quick) == 1
    assert len(stream.client.written) == 2


async def test_a_mistake_of_ours_is_raised_where_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    stream.feed(chunk(EVENT), chunk(EVENT))

    def fails(_data: bytes) -> None:
        raise RuntimeError("mine")

    monkeypatch.setattr(stream.client, "write", fails)
    stream.feed(chunk(EVENT))
    assert stream.wakes == 1
    stream.feed(chunk(EVENT), b"0\r\n\r\n")
    with pytest.raises(RuntimeError, match="mine"):
        await stream.connection.read_chunk()


@pytest.mark.parametrize(
    "odd",
    [
        b"%X\r\n%b\r\n" % (len(EVENT) + 100, EVENT[:-2] + b" " * 100 + b"\n\n"),
        b"0%x\r\n%b\r\n" % (len(EVENT), EVENT),
        b"%x;a=b\r\n%b\r\n" % (len(EVENT), EVENT),
        chunk(EVENT[:-1]) + chunk(b"\n"),
        chunk(EVENT[:10]) + chunk(EVENT[10:]),
        chunk(EVENT) + chunk(EVENT),
        chunk(EVENT[:-2] + b"\r\n\r\n"),
        chunk(b"data: " + b"x" * 10_000 + b"\n\n"),
    ],
    ids=["capitals", "zero", "extension", "split end", "split", "two", "crlf", "large"],
)
async def test_other_chunks_are_taken_apart(odd: bytes, quick: list[bytes]) -> None:
    stream = Stream()
    stream.feed(chunk(EVENT), odd, chunk(EVENT), chunk(EVENT), b"0\r\n\r\n")
    body = stream.body
    assert body.startswith(EVENT)
    assert body.endswith(EVENT * 2)
    assert body.count(b"data: ") == 4 + (odd == chunk(EVENT) * 2)
    assert quick == [chunk(EVENT)] * 2, "those that follow it"
    assert stream.passing.is_over


BAD = [b"-2\r\n", b"0x5\r\nab\n\n\r\n", b"\r\n\r\n", b"3\r\nab\n\n\r\n", b"+4\r\nab\n\n\r\n"]
# No chunk is as long as these; a reader that passes over a line break would see an end, and a second answer.
FORGED = [b"\n0\r\n\r\n" + b"x" * (size_bytes - 10) + b"\n\n\r\n" for size_bytes in (21, 262, 4103)]


@pytest.mark.parametrize("bad", BAD + FORGED)
async def test_what_is_no_chunk_ends_the_answer(bad: bytes, quick: list[bytes]) -> None:
    stream = Stream()
    stream.feed(chunk(EVENT), chunk(EVENT), bad)
    assert len(quick) == 1
    assert stream.body == EVENT * 2
    assert stream.wakes == 1
    assert stream.engine.is_closed


async def test_the_second_half_of_a_chunks_first_line_is_none(quick: list[bytes]) -> None:
    inner, rest = chunk(b"data: x\n\n"), b"y" * 12 + b"\n\n"
    stream = Stream()
    stream.feed(chunk(EVENT), chunk(EVENT), b"1", inner, rest + b"\r\n", chunk(EVENT))
    assert stream.body == EVENT * 2 + b"data: x\n\n\r\n" + rest + EVENT
    assert quick == [chunk(EVENT)] * 2


async def test_what_looks_like_a_chunk_inside_of_one_is_none(quick: list[bytes]) -> None:
    before, inner = b"data: a\r\n\r\n", chunk(b"data: x\n\n")
    outer = chunk(before + inner + b"\n\n")
    stream = Stream()
    cut = outer.index(inner)
    stream.feed(chunk(EVENT), outer[:cut], inner, outer[cut + len(inner) :])
    assert stream.body == EVENT + before + inner + b"\n\n"
    assert quick == []


@pytest.mark.parametrize("seed", range(60))
async def test_any_stream_in_any_pieces_is_the_same_to_the_client(seed: int, quick: list[bytes]) -> None:
    dice = random.Random(seed)
    path = dice.choice([CHAT, OLLAMA_CHAT])
    end = b"\n\n" if path == CHAT else b"\n"
    ends = [end, end, end, b"\r\n\r\n"] if path == CHAT else [end]
    frames = [
        b"data: "
        + dice.choice([b"x", b"5\r\nab", b"\r\n", b"0\r\n\r\n"]) * dice.randrange(1, 90)
        + dice.choice(ends)
        for _ in range(80)
    ]
    body = b"".join(frames)
    wire: list[bytes] = []
    rest = body
    while rest:
        if dice.random() < 0.7:  # one frame
            size = max(1, rest.find(end) + len(end)) if end in rest else len(rest)
        else:
            size = dice.randrange(1, 400)
        data, rest = rest[:size], rest[size:]
        line = dice.choice([b"%x", b"%x", b"%x", b"%X", b"00%x", b"%x;q=1"]) % len(data)
        wire.append(b"%b\r\n%b\r\n" % (line, data))
    wire.append(b"0\r\n\r\n")
    pieces: list[bytes] = []
    for one in wire:
        if pieces and dice.random() < 0.2:
            pieces[-1] += one
        elif dice.random() < 0.2:
            cut = dice.randrange(len(one))
            pieces += [one[:cut], one[cut:]]
        else:
            pieces.append(one)
    stream = Stream(path)
    stream.feed(*filter(None, pieces))
    assert stream.body == body
    assert stream.passing.is_over
    assert stream.delivery.answer_bytes == len(body)
    plain = TokenTail()
    plain.framing = stream.tail.framing
    plain.add(body)
    assert stream.tail.tokens() == plain.tokens()
    assert quick
    assert stream.silence.is_heard


async def test_the_first_frame_goes_out_before_the_rest_of_a_burst_is_parsed() -> None:
    stream = Stream(has_head=False)
    stream.feed(stream.head + chunk(EVENT) * 30)
    assert stream.client.written[0].endswith(b"\r\n\r\n" + chunk(EVENT))
    assert len(stream.client.written) == 2
    stream.feed(b"0\r\n\r\n")
    assert stream.body == EVENT * 30
    assert stream.passing.is_over


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"]
)
async def test_preliminary_heads_without_end_are_no_depth(interim: bytes) -> None:
    stream = Stream(has_head=False)
    stream.feed(interim * 2_000 + stream.head + chunk(EVENT) * 3 + b"0\r\n\r\n")
    assert stream.body == EVENT * 3
    assert stream.passing.is_over


async def test_what_follows_an_answer_that_is_no_http_is_not_taken_for_one() -> None:
    stream = Stream(has_head=False)
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nx\n\r\n"
    stream.feed(switching + stream.head + chunk(EVENT) * 30 + b"0\r\n\r\n")
    assert stream.client.written == []
    assert stream.wakes == 1
    with pytest.raises(UpstreamFailed, match="not HTTP"):
        await stream.connection.head()


@pytest.mark.parametrize("length", [None, 5_000])
async def test_a_whole_answer_may_look_like_that(length: int | None) -> None:
    body = b'{"a":"b"}\n\r\n' + b" " * 4_988
    stream = Stream(has_head=False)
    framed = chunk(body) + b"0\r\n\r\n" if length is None else body
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    stream.feed(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%b\r\n\r\n%b" % (framing, framed))
    if length is None:
        assert stream.wakes == 1, "a task puts it together"
        assert stream.connection.take() == body
    else:
        assert stream.body == body
        assert stream.passing.is_over


async def test_a_long_stream_keeps_no_more_than_its_end() -> None:
    stream = Stream()
    stream.feed(*[chunk(EVENT)] * 5_000)
    assert len(stream.tail.kept) <= 40_000
    stream.feed(b"0\r\n\r\n")
    assert stream.tail.tokens() == (None, 5_000)
    assert stream.tail.framing is Framing.EVENTS
