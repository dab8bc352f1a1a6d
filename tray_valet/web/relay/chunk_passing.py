"""The middle of a stream: whole chunks, each with a frame or some in it, pass as they are, framing and all.

Decides: which bytes are such a chunk. A token costs a few µs here, and most of them are spent on the way
through functions; so this is one. Must not: begin or end answers, or pass on anything that we would have
written in another way: then no two readers can differ in where it ends.
"""

from __future__ import annotations

from tray_valet.web.relay.delivery import Delivery
from tray_valet.web.relay.ends import Silence
from tray_valet.web.relay.token_tail import MOST_BYTES, TokenTail

_MOST_CHUNK_BYTES = 8 * 1024  # larger ones are worth being looked at
_NO_LINE = b"\n" * _MOST_CHUNK_BYTES  # longer than any: nothing begins so


def _first_lines() -> list[bytes]:
    """The first line (its length in hexadecimal) of a chunk, by the chunk's whole length in bytes."""
    lines = [_NO_LINE] * _MOST_CHUNK_BYTES
    for size_bytes in range(1, _MOST_CHUNK_BYTES):
        line = b"%x\r\n" % size_bytes
        whole_bytes = len(line) + size_bytes + 2
        if whole_bytes < _MOST_CHUNK_BYTES:
            lines[whole_bytes] = line
    return lines


_FIRST_LINES = _first_lines()


class ChunkPassing:
    """One stream's, from a moment between two frames on."""

    __slots__ = ("_delivery", "_end", "_kept", "_silence", "_tail")

    def __init__(self, delivery: Delivery, tail: TokenTail, silence: Silence, frame_end: bytes) -> None:
        self._delivery = delivery
        self._tail = tail
        self._kept = tail.kept
        self._silence = silence
        self._end = frame_end + b"\r\n"

    def take(self, chunk: bytes) -> bool:
        """Pass it on, if it is one chunk of whole frames and the client takes it; whether that was so."""
        whole_bytes = len(chunk)
        if whole_bytes >= _MOST_CHUNK_BYTES:
            return False
        line = _FIRST_LINES[whole_bytes]
        if not (chunk.startswith(line) and chunk.endswith(self._end)):
            return False
        delivery = self._delivery
        if not delivery.client.write_chunk(chunk):
            return False
        self._silence.is_heard = True
        piece = chunk[len(line) : -2]
        delivery.answer_bytes += len(piece)
        kept = self._kept
        kept += piece
        if len(kept) > MOST_BYTES:
            self._tail.trim()
        return True
