"""Server-sent events in whole: what may be passed on now, and what is still half an event.

Decides: where an event ends. Must not: read or change events. A stream that is cut in mid-event could not
be told anything more: its client would read the rest of our error as part of the broken event.
"""

from __future__ import annotations

_MOST_HELD_BYTES = 2**20  # an event longer than that is passed on in pieces
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


class WholeEvents:
    """Holds back the unfinished end of a stream. Engines write events whole: as a rule it holds nothing."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_inside = False  # the beginning of the present event has been passed on

    def pass_on(self, chunk: bytes) -> bytes:
        """All that is whole, with this chunk; may be empty."""
        data = self._rest + chunk if self._rest else chunk
        end = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in _ENDS)
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
        """What must be sent before an event of our own: the end of one that is half sent, or nothing."""
        self._rest = b""
        return b"\n\n" if self._is_inside else b""
