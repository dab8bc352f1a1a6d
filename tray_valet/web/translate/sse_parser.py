"""Server-sent events, read: bytes in any pieces become events.

Decides: where lines and events end. Must not: know what an event means, or cost more than one look at each
byte. Source: the HTML standard, 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

from collections.abc import Iterator


class SseParser:
    """Reads one event stream."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the unfinished line: joined once, when it ends
        self._name = b""
        self._data: list[bytes] = []

    def events(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The events that end in this chunk, as (name, data); the name is b"" where none is given.

        A line `error: {…}` (older llama.cpp) counts as data of an event of that name.
        """
        for line in self._lines(chunk):
            if not line:
                if self._data:
                    yield self._name, self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                self._name, self._data = b"", []
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                self._data.append(value)
            elif field == b"event":
                self._name = value
            elif field == b"error":
                self._name = field
                self._data.append(value)

    def _lines(self, chunk: bytes) -> list[bytes]:
        is_split = bool(self._pieces) and self._pieces[-1].endswith(b"\r")
        if b"\n" not in chunk and b"\r" not in chunk and not is_split:
            self._pieces.append(chunk)
            return []
        text = b"".join((*self._pieces, chunk)) if self._pieces else chunk
        held = b""
        if text.endswith(b"\r"):  # the first half of \r\n, perhaps
            text, held = text[:-1], b"\r"
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        rest += held
        self._pieces = [rest] if rest else []
        return lines
