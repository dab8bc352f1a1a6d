"""One exchange with an upstream: the request goes there, its answer comes back as it arrives.

Decides: what an engine's refusal means for the next candidate, and which answers are changed on their way;
all others `passing.py` passes on. Must not: choose the upstream, wait for a model, or tell a client of
failures (they are raised).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from tray_valet.core.commands import Lease
from tray_valet.core.dialects import Framing
from tray_valet.core.errors import UpstreamFailed
from tray_valet.web.edge.answer_head import AnswerHead, Header
from tray_valet.web.relay.asking import JSON, Asking, asking_for
from tray_valet.web.relay.delivery import Delivery
from tray_valet.web.relay.ends import Silence
from tray_valet.web.relay.engine_refusals import refusal_in, sentence_in
from tray_valet.web.relay.passed_headers import framing_of, head_downstream, head_of_ours
from tray_valet.web.relay.passing import Passing, next_chunk
from tray_valet.web.relay.question import Question
from tray_valet.web.relay.request_body import Asked, check_texts
from tray_valet.web.relay.token_tail import TokenTail
from tray_valet.web.relay.upstream_client import UpstreamClient, UpstreamResponse
from tray_valet.web.relay.upstream_connection import Connection

_REFUSAL_BYTES = 256 * 1024  # of an engine's refusal that is kept for the case that nobody answers
_REFUSAL_S = 5.0
_UNKNOWN, _FAILURE, _OVERLOADED, _ERROR, _OK = 501, 500, 429, 400, 200
_PREVIEW_CHARS = 200


class RejectedError(UpstreamFailed):
    """The engine answered with a refusal of its own."""

    def __init__(self, who: str, status: int, headers: Sequence[Header], body: bytes, said: str) -> None:
        """`body` as the client gets it; `said` are the engine's own words, "" where there are none."""
        super().__init__(f"{who} answered {status}: {said}" if said else f"{who} answered {status}.")
        self.status = status
        self.headers = headers
        self.body = body


class Exchange:
    """One request forwarded under a lease. `run` it, and `close` it in any case."""

    __slots__ = (
        "_asked",
        "_asking",
        "_client",
        "_delivery",
        "_lease",
        "_passing",
        "_response",
        "_silence",
        "_tail",
    )

    def __init__(
        self,
        client: UpstreamClient,
        lease: Lease,
        asked: Asked,
        delivery: Delivery,
        tail: TokenTail,
        *,
        silence: Silence,
        asking: Asking | None = None,
    ) -> None:
        """`asking`: the question, where it was put already or may be."""
        self._client = client
        self._lease = lease
        self._asked = asked
        self._delivery = delivery
        self._tail = tail
        self._response: UpstreamResponse | None = None
        self._silence = silence
        self._passing = Passing(lease, delivery, tail, silence)
        self._asking = asking

    def begin(self, on_wake: Callable[[], None]) -> bool:
        """Wait for the answer without a task, if the question is on its way; say if that was so.

        `on_wake` is called once: the answer `is_over`, or it takes a task to `run` what is left of it.
        """
        sent = self._sent
        if sent is None:
            return False
        self._silence.begins()
        self._response = sent
        sent.expect(self._passing, on_wake)
        return True

    @property
    def _sent(self) -> Connection | None:
        return None if self._asking is None else self._asking.connection

    def leave_to_task(self) -> None:
        """`run` is going to be called: `on_wake` is not, any more."""
        if (sent := self._sent) is not None:
            sent.leave_to_task()

    @property
    def is_over(self) -> bool:
        """Whether the whole answer has been passed on."""
        return self._passing.is_over

    async def run(self) -> None:
        """Forward and stream back, or what is left of it.

        Raises RejectedError, InvalidJson, ProviderUnreachable, UpstreamFailed; what ends it from outside
        cancels it.
        """
        asking = self._asking or asking_for(self._asked, self._lease)
        question = asking.question
        response = await self._open(asking)
        if self._passing.is_over:
            return
        if response.status >= _ERROR:
            body = await self._refusal(response, question)
            head = head_downstream(response.headers, self._lease).answer.headers
            raise self._rejection(response.status, head, body)
        if (
            question.assembler is not None
            and response.status == _OK
            and framing_of(response.headers) is not None
        ):
            await self._put_together(response, question)
        elif question.native is not None:
            await self._translate(response, question)
        else:
            await self._passing.run(response)

    def close(self) -> None:
        """End what is still going on with the engine."""
        if self._response is not None:
            self._response.close()

    # -- asking ----------------------------------------------------------------------------------------

    async def _open(self, asking: Asking) -> UpstreamResponse:
        listener = None if asking.question.is_translated else self._passing
        self._silence.begins()
        self._response = response = await self._client.open(asking.request, listener, asking.connection)
        self._silence.is_over()
        return response

    def _rejection(self, status: int, head: tuple[Header, ...], body: bytes) -> RejectedError:
        """What the engine's refusal is to the client. Raises InvalidJson where that is what it is about."""
        asked, who = self._asked, self._lease.ref.provider
        if is_failure(status) and asked.is_large:
            check_texts(asked.fields)  # then it is the client's mistake, and no other is asked
        shaped = refusal_in(asked.operation.dialect, status, body, who)
        if shaped is not body:
            head = (JSON, *(pair for pair in head if pair[0] != JSON[0]))
        return RejectedError(who, status, head, shaped, sentence_in(body)[:_PREVIEW_CHARS])

    async def _refusal(self, response: UpstreamResponse, question: Question) -> bytes:
        """The body of a refusal; one that is endless or slow is left as far as it came."""
        pieces: list[bytes] = []
        size_bytes = 0
        try:
            async with asyncio.timeout(_REFUSAL_S):
                while size_bytes < _REFUSAL_BYTES and (chunk := await response.read_chunk()) is not None:
                    pieces.append(chunk)
                    size_bytes += len(chunk)
        except (TimeoutError, UpstreamFailed):
            pass
        body = b"".join(pieces)
        return question.native.error(response.status, body) if question.native is not None else body

    # -- changed on its way ----------------------------------------------------------------------------

    async def _put_together(self, response: UpstreamResponse, question: Question) -> None:
        """A whole answer from a stream that only we asked for."""
        assembler = question.assembler
        assert assembler is not None
        self._tail.framing = Framing.EVENTS
        while (chunk := await next_chunk(response, self._silence)) is not None:
            assembler.feed(chunk)
            self._tail.add(chunk)
            if assembler.error is not None:
                break
        if assembler.error is not None:
            status, body = assembler.error
            raise self._rejection(status, self._own_head().headers, body)
        self._deliver_whole(_OK, assembler.finish())

    async def _translate(self, response: UpstreamResponse, question: Question) -> None:
        """Ollama's answer in the words that the client knows."""
        native, delivery = question.native, self._delivery
        assert native is not None
        if response.status != _OK:
            self._deliver_whole(response.status, await self._refusal(response, question))
            return
        status, kind = native.head(response.status)
        self._tail.framing = Framing.LINES if native.is_stream else None
        while (chunk := await next_chunk(response, self._silence)) is not None:
            self._tail.add(chunk)
            if piece := native.feed(chunk):
                if not delivery.is_writable:
                    await delivery.drain()
                if not delivery.has_answer:
                    delivery.begin(status, self._own_head(kind), Framing.EVENTS)
                delivery.write(piece)
        rest = native.finish()
        if not native.is_stream:
            self._deliver_whole(status, rest)
            return
        if not delivery.has_answer:
            delivery.begin(status, self._own_head(kind), Framing.EVENTS)
        delivery.finish(rest)

    def _deliver_whole(self, status: int, body: bytes) -> None:
        self._delivery.begin(status, self._own_head(), None, len(body))
        self._delivery.finish(body)

    def _own_head(self, kind: bytes = JSON[1]) -> AnswerHead:
        return head_of_ours(kind, self._lease)


def is_for_another(status: int) -> bool:
    """Whether a refusal is one that another candidate may make good."""
    return status >= _FAILURE or status == _OVERLOADED


def is_failure(status: int) -> bool:
    """Whether an answer means that the engine failed, and not that the request is wrong or unknown to it."""
    return status >= _FAILURE and status != _UNKNOWN
