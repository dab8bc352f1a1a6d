"""What one client gets: a head, pieces, an end, each once and in order, whoever answers in the end.

Decides: how pieces are framed, how an answer that must end early says so, and when a client that waits gets a
sign of life. Must not: know upstreams.
"""

from __future__ import annotations

import asyncio
import time

from starlette.types import Send

from tray_valet.core.dialects import Dialect, Framing, Operation
from tray_valet.web.answer_cycle import HELD
from tray_valet.web.bodies import ClientGoneError
from tray_valet.web.dialect_errors import Failure, answer_at, stream_error
from tray_valet.web.whole_events import WholeEvents, WholeLines

Headers = list[tuple[bytes, bytes]]
SIGN_OF_LIFE_S = 3.0
_LAST_WORD_S = 0.3
_COMMENT = b": waiting for the model\n\n"
_EARLY_HEAD: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
)


class Delivery:
    """The answer to one request, as far as it has gone out."""

    __slots__ = (
        "_comment",
        "_has_written",
        "_loop",
        "_operation",
        "_send",
        "_timer",
        "_whole",
        "answer_bytes",
        "began_s",
        "has_answer",
        "status",
    )

    def __init__(self, send: Send, operation: Operation, loop: asyncio.AbstractEventLoop) -> None:
        self._send = send
        self._loop = loop
        self._operation = operation
        self._whole: WholeEvents | WholeLines | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None
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

    # -- signs of life ---------------------------------------------------------------------------------

    def promise(self, every_s: float) -> None:
        """Send a comment every `every_s` seconds until the answer begins; for event streams only."""
        self._timer = self._loop.call_later(every_s, self._give_sign, every_s)

    def abandon(self) -> None:
        """Send no more comments, whatever comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._comment is not None and not self._comment.done():
            self._comment.cancel()

    def _give_sign(self, every_s: float) -> None:
        if self._comment is None or self._comment.done():
            self._comment = asyncio.create_task(self._say_waiting(), name="router: sign of life")
        self._timer = self._loop.call_later(every_s, self._give_sign, every_s)

    async def _say_waiting(self) -> None:
        if not self.is_started:
            self.status = 200
            self._whole = WholeEvents()
            head = {"type": "http.response.start", "status": 200, "headers": list(_EARLY_HEAD)}
            await self._send(head)
        await self._send({"type": "http.response.body", "body": _COMMENT, "more_body": True})

    async def _stop_signs(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._comment is not None:
            await asyncio.wait({self._comment})  # half a head must not be followed by another
            self._comment = None

    # -- the answer ------------------------------------------------------------------------------------

    async def begin(self, status: int, headers: Headers, framing: Framing | None) -> None:
        """The head of an engine's answer; passed over where a sign of life has sent one."""
        if self._timer is not None or self._comment is not None:
            await self._stop_signs()
        self.has_answer = True
        self.began_s = time.monotonic()
        if self.status:
            return
        self.status = status
        if framing is not None:
            self._whole = WholeEvents() if framing is Framing.EVENTS else WholeLines()
        # `write` or `finish` follows at once.
        await self._send({"type": "http.response.start", "status": status, "headers": headers, HELD: True})

    async def write(self, piece: bytes) -> None:
        """The next bytes; a stream goes out in whole frames only."""
        if self._whole is not None:
            piece = self._whole.pass_on(piece)
        if piece or not self._has_written:
            self._has_written = True  # an empty piece too: the head waits for the first
            self.answer_bytes += len(piece)
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def finish(self, piece: bytes = b"") -> None:
        """The last bytes, and the end."""
        if self._whole is not None:
            piece = self._whole.pass_on(piece) + self._whole.finish()
        self.answer_bytes += len(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": False})

    async def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer that nobody streams. Where a head has gone out already: its error event."""
        await self._stop_signs()
        if self.is_started:
            await self._last_word(_framed(self._operation.dialect, body))
            return
        self.status = status
        self.answer_bytes += len(body)
        whole = [*headers, (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": whole})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: Failure) -> None:
        """Tell the client of a failure, in the way that is still open.

        Raises ClientGoneError where none is: half a body can only be cut.
        """
        if not self.is_started and self._comment is None:
            self.abandon()
            answer = answer_at(self._operation.path, error)
            headers = [(b"content-type", b"application/json"), *answer.headers]
            await self.send_whole(answer.status, headers, answer.body)
            return
        await self._stop_signs()
        if self._whole is None:
            raise ClientGoneError
        await self._last_word(stream_error(self._operation.dialect, error))

    async def _last_word(self, event: bytes) -> None:
        """An event of our own, and the end; a client that does not read is not waited for."""
        if self._whole is None:
            raise ClientGoneError
        try:
            async with asyncio.timeout(_LAST_WORD_S):
                body = self._whole.cut() + event
                await self._send({"type": "http.response.body", "body": body, "more_body": False})
        except TimeoutError:
            raise ClientGoneError from None


def _framed(dialect: Dialect, body: bytes) -> bytes:
    """An engine's own error as the last event of a stream."""
    line = b" ".join(body.split(b"\n"))
    if dialect is Dialect.OLLAMA:
        return line + b"\n"
    name = b"event: error\n" if dialect is Dialect.ANTHROPIC else b""
    return name + b"data: " + line + b"\n\n"
