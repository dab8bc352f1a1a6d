"""What one client gets: a head, pieces, an end, each once and in order, whoever answers in the end.

Decides: how pieces are framed, how an answer that must end early says so, and when a client that waits gets a
sign of life. Must not: know upstreams.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tray_valet.core.dialects import Framing, Operation
from tray_valet.web.edge.answer_head import AnswerHead, Header, answer_head
from tray_valet.web.edge.bodies import ClientGoneError
from tray_valet.web.edge.requests import DirectAnswer
from tray_valet.web.relay.dialect_errors import Failure, answer_at, framed_error, stream_error
from tray_valet.web.relay.whole_events import WholeEvents, WholeLines

SIGN_OF_LIFE_S = 3.0
_LAST_WORD_S = 0.3
_COMMENT = b": waiting for the model\n\n"
_EARLY_HEAD = answer_head(
    ((b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no"))
)


class Delivery:
    """The answer to one request, as far as it has gone out."""

    __slots__ = (
        "_answer",
        "_has_written",
        "_operation",
        "_signs",
        "_whole",
        "answer_bytes",
        "began_s",
        "client",
        "has_answer",
        "status",
    )

    def __init__(self, answer: DirectAnswer, operation: Operation) -> None:
        self._answer = answer
        self.client = answer.writer
        self._operation = operation
        self._whole: WholeEvents | WholeLines | None = None
        self._signs: SignsOfLife | None = None
        self._has_written = False
        self.status = 0  # what the client was told; 0 = nothing yet
        self.has_answer = False  # something of an engine's answer has gone out
        self.answer_bytes = 0
        self.began_s: float | None = None  # when (monotonic) the first of it went out

    @property
    def is_started(self) -> bool:
        """Whether a head has gone out."""
        return self.status != 0

    @property
    def is_stream(self) -> bool:
        """Whether it goes out piece by piece, in frames that an error can be put into."""
        return self._whole is not None

    @property
    def is_writable(self) -> bool:
        """Whether the client is there and takes what is written: else `drain` first."""
        return self.client.is_writable

    async def drain(self) -> None:
        """Wait until the client takes more, or is gone."""
        await self.client.drain()

    def let_go(self) -> None:
        """Nothing more is sent; what was, can still be told. The request and its connection are not held."""
        del self._answer, self.client

    # -- signs of life ---------------------------------------------------------------------------------

    def promise(self, signs: SignsOfLife) -> None:
        """Send a comment now and then until the answer begins; for event streams only."""
        self._signs = signs
        signs.add(self)

    def abandon(self) -> None:
        """Send no more comments, whatever comes."""
        if self._signs is not None:
            self._signs.discard(self)
            self._signs = None

    def give_sign(self) -> None:
        """Tell the client that it is not forgotten."""
        if not self.client.is_writable:
            return  # who does not read what has come waits for no sign
        if not self.is_started:
            self._start(200, _EARLY_HEAD, Framing.EVENTS, None)
        self.client.write(_COMMENT, has_more=True)

    # -- the answer: each of these is sent at once; look first whether the client `is_writable` ---------

    def begin(
        self, status: int, head: AnswerHead, framing: Framing | None, length: int | None = None
    ) -> None:
        """The head of an engine's answer, and its length if that is known; passed over where a sign of life
        has sent one.

        `write` or `finish` follows at once.
        """
        if self._signs is not None:
            self.abandon()
        self.has_answer = True
        self.began_s = time.monotonic()
        if not self.status:
            self._start(status, head, framing, length)

    def write(self, piece: bytes) -> None:
        """The next bytes; a stream goes out in whole frames only."""
        if self._whole is not None:
            piece = self._whole.pass_on(piece)
        if piece or not self._has_written:
            self._has_written = True  # an empty piece too: the head waits for the first
            self.answer_bytes += len(piece)
            self.client.write(piece, has_more=True)

    @property
    def frame_end(self) -> bytes | None:
        """What ends a frame, where whole frames may go past this to the client in chunks of HTTP's, until
        something is written here; else None."""
        whole = self._whole
        return whole.end if whole is not None and whole.is_between and self.client.takes_chunks else None

    def finish(self, piece: bytes = b"") -> None:
        """The last bytes, and the end."""
        if self._whole is not None:
            piece = self._whole.pass_on(piece) + self._whole.finish()
        self.answer_bytes += len(piece)
        self.client.write(piece, has_more=False)

    async def send_whole(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """A whole answer that nobody streams. Where a head has gone out already: its error event."""
        self.abandon()
        if self.is_started:
            await self._last_word(framed_error(self._operation.path, body))
            return
        self.answer_bytes += len(body)
        self._start(status, answer_head(tuple(headers)), None, len(body))
        self.client.write(body, has_more=False)

    async def fail(self, error: Failure) -> None:
        """Tell the client of a failure, in the way that is still open.

        Raises ClientGoneError where none is: half a body can only be cut.
        """
        self.abandon()
        if self.is_started:
            await self._last_word(stream_error(self._operation.path, error))
            return
        answer = answer_at(self._operation.path, error)
        headers = [(b"content-type", b"application/json"), *answer.headers]
        await self.send_whole(answer.status, headers, answer.body)

    async def _last_word(self, event: bytes) -> None:
        """An event of our own, and the end; a client that does not read is not waited for."""
        if self._whole is None:
            raise ClientGoneError
        if not self.client.is_writable:
            try:
                async with asyncio.timeout(_LAST_WORD_S):
                    await self.client.drain()
            except TimeoutError:
                raise ClientGoneError from None
        self.client.write(self._whole.cut() + event, has_more=False)

    def _start(self, status: int, head: AnswerHead, framing: Framing | None, length: int | None) -> None:
        self.status = status
        if framing is not None:
            self._whole = WholeEvents() if framing is Framing.EVENTS else WholeLines()
        self._answer.start(status, head, length)


class SignsOfLife:
    """Gives every client that waits for a stream a sign now and then; one timer looks at all of them."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due_s: dict[Delivery, float] = {}  # loop time
        self._timer: asyncio.TimerHandle | None = None

    def add(self, delivery: Delivery) -> None:
        """Give it signs, the first after `every_s` seconds."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        self._due_s[delivery] = loop.time() + self._every_s
        if self._timer is None:
            self._timer = loop.call_later(self._every_s, self._look, loop)

    def discard(self, delivery: Delivery) -> None:
        """Give it none any more."""
        self._due_s.pop(delivery, None)

    def close(self) -> None:
        """Give none to anybody."""
        self._due_s.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        self._timer = None
        try:
            for delivery, due_s in tuple(self._due_s.items()):
                if due_s <= now_s:
                    self._due_s[delivery] = now_s + self._every_s
                    delivery.give_sign()
        finally:  # whatever becomes of one: the others wait for theirs
            if self._due_s and self._timer is None:
                self._timer = loop.call_at(min(self._due_s.values()), self._look, loop)
