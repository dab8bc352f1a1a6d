"""An engine's answer on its way to the client, byte by byte as it is.

Decides: when the head goes out, and what of an answer is passed on at once, where it comes in: a task's turn
for each piece would cost more than the piece. Must not: judge refusals (`exchange.py` does) or change bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from tray_valet.core.commands import Lease
from tray_valet.core.errors import UpstreamFailed
from tray_valet.web.relay.chunk_passing import ChunkPassing
from tray_valet.web.relay.delivery import Delivery
from tray_valet.web.relay.ends import Silence
from tray_valet.web.relay.passed_headers import PassedHead, head_downstream, is_short
from tray_valet.web.relay.token_tail import TokenTail
from tray_valet.web.relay.upstream_client import UpstreamResponse

_ERROR = 400
_PREVIEW_BYTES = 200


async def next_chunk(response: UpstreamResponse, silence: Silence) -> bytes | None:
    """The next bytes of an answer, None at its end; `silence` runs meanwhile. Raises UpstreamFailed."""
    silence.begins()
    chunk = await response.read_chunk()
    silence.is_over()
    return chunk


class Passing:
    """One answer. The engine's connection tells what comes; `run` is for the task that waits for the end."""

    __slots__ = (
        "_chunks",
        "_delivery",
        "_has_begun",
        "_is_over",
        "_is_tasks_turn",
        "_lease",
        "_silence",
        "_tail",
    )

    def __init__(self, lease: Lease, delivery: Delivery, tail: TokenTail, silence: Silence) -> None:
        self._lease = lease
        self._delivery = delivery
        self._tail = tail
        self._silence = silence
        self._has_begun = False  # the head is on its way
        self._is_over = False
        self._is_tasks_turn = False  # the beginning is its
        self._chunks: ChunkPassing | None = None

    @property
    def is_over(self) -> bool:
        """Whether all of it has been passed on."""
        return self._is_over

    def on_data(self, response: UpstreamResponse) -> bool:
        """Pass on what has come, if nothing is in the way; whether the task need not wake for it.

        It wakes for the end, for a client that does not read, and for what it has to judge.
        """
        self._silence.is_heard = True
        delivery = self._delivery
        if self._is_tasks_turn or not delivery.client.is_writable:
            return False
        if not self._has_begun:
            if response.status >= _ERROR or delivery.is_started:
                return False
            head = head_downstream(response.headers, self._lease)
            if head.framing is None:
                if not response.is_complete:
                    return is_short(response.length)
            elif not response.has_unread and not response.is_complete:
                return True
            self._begin(response, head)
        chunk = response.take()
        if response.is_complete:
            self._pass_on(chunk, is_end=True)
            return False
        delivery.write(chunk)
        self._tail.add(chunk)
        return True

    def by_chunks(self) -> Callable[[bytes], bool] | None:
        """What passes on whole chunks as they are from here on; None where that can't be."""
        frame_end = self._delivery.frame_end if self._has_begun else None
        if frame_end is None:
            return None
        chunks = self._chunks
        if chunks is None:
            chunks = self._chunks = ChunkPassing(self._delivery, self._tail, self._silence, frame_end)
        return chunks.take

    async def run(self, response: UpstreamResponse) -> None:
        """Pass on the answer, or what is left of it. Raises UpstreamFailed if it breaks off."""
        delivery = self._delivery
        if not self._has_begun:
            head = head_downstream(response.headers, self._lease)
            chunk = await self._beginning(response, head)
            if not delivery.is_writable:
                await delivery.drain()
            self._begin(response, head)
            self._pass_on(chunk or b"", is_end=chunk is None or response.is_ended)
        while not self._is_over:
            chunk = response.take() or await next_chunk(response, self._silence)
            if not delivery.is_writable:
                await delivery.drain()
            self._pass_on(chunk or b"", is_end=chunk is None or response.is_ended)

    async def _beginning(self, response: UpstreamResponse, head: PassedHead) -> bytes | None:
        """The first bytes, which the head waits for: until then another candidate may answer. Of an answer
        that is not streamed and short it is all."""
        self._is_tasks_turn = True
        chunk = response.take() or await next_chunk(response, self._silence)
        if head.framing is None:
            if self._delivery.is_started:
                raise self._no_stream(chunk)
            if chunk is not None and not response.is_ended and is_short(response.length):
                chunk = await self._all_of(response, chunk)
        self._is_tasks_turn = False
        return chunk

    def _begin(self, response: UpstreamResponse, head: PassedHead) -> None:
        self._has_begun = True
        framing = head.framing
        self._tail.framing = framing
        self._delivery.begin(
            response.status, head.answer, framing, response.length if framing is None else None
        )

    def _pass_on(self, chunk: bytes, *, is_end: bool) -> None:
        if self._is_over:
            return  # it ended while the task slept
        if is_end:
            self._is_over = True
            self._delivery.finish(chunk)
            self._silence.ends.close()  # who leaves now, before the task wakes, has got everything
        else:
            self._delivery.write(chunk)
        if chunk:
            self._tail.add(chunk)

    async def _all_of(self, response: UpstreamResponse, begun: bytes) -> bytes:
        pieces = [begun]
        while (chunk := await next_chunk(response, self._silence)) is not None:
            pieces.append(chunk)
        return b"".join(pieces)

    def _no_stream(self, chunk: bytes | None) -> UpstreamFailed:
        """A client that was promised events must not get something else."""
        shown = (chunk or b"")[:_PREVIEW_BYTES].decode(errors="replace")
        return UpstreamFailed(f"{self._lease.ref.provider} did not stream its answer: {shown}")
