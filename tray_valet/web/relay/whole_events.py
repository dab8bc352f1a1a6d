"""Streams in whole frames: what may be passed on now, and what is still half an event or half a line.

Decides: where a frame ends. Must not: read or change frames. A stream that is cut in mid-frame could not be
told anything more: its client would read the rest of our error as part of the broken one.
"""

from __future__ import annotations

_MOST_HELD_BYTES = 2**20  # a frame longer than that is passed on in pieces
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


class WholeEvents:
    """Holds back the unfinished end of a stream of events. Engines write events whole: it holds nothing, as a
    rule."""

    end = b"\n\n"  # what ends a frame, also one that is half sent

    def __init__(self) -> None:
        self._rest = b""
        self._is_inside = False  # the beginning of the present frame has been passed on

    @property
    def is_between(self) -> bool:
        """Whether all that came has been passed on, and the next byte begins a frame."""
        return not self._rest and not self._is_inside

    def pass_on(self, chunk: bytes) -> bytes:
        """All that is whole, with this chunk; may be empty."""
        if not self._rest and chunk.endswith(self.end):
            self._is_inside = False
            return chunk
        data = self._rest + chunk if self._rest else chunk
        end = self._end_of_last(data)
        whole, rest = data[:end], data[end:]
        if whole:
            self._is_inside = False
        if len(rest) > _MOST_HELD_BYTES:
            self._is_inside, self._rest = True, b""
            return data
        self._rest = rest
        return whole

    def finish(self) -> bytes:
        """What was held back; the stream has ended by itself."""
        rest, self._rest = self._rest, b""
        return rest

    def cut(self) -> bytes:
        """What must be sent before a frame of our own: the end of one that is half sent, or nothing."""
        self._rest = b""
        return self.end if self._is_inside else b""

    @staticmethod
    def _end_of_last(data: bytes) -> int:
        return max((place + len(mark) if (place := data.rfind(mark)) >= 0 else 0) for mark in _ENDS)


class WholeLines(WholeEvents):
    """The same for lines."""

    end = b"\n"

    @staticmethod
    def _end_of_last(data: bytes) -> int:
        return data.rfind(b"\n") + 1
