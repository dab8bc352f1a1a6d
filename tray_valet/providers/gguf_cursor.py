"""Reads forward through the metadata of a GGUF file.

Decides: the layout of keys and values. Must not: know what a key means, or trust the file (sizes are
bounded, it may be half copied, or no model at all).

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

# What reading a file that is none, or not a whole one, may raise.
MALFORMED = (struct.error, KeyError, ValueError, TypeError, OverflowError)
_CHUNK_BYTES = 1 << 20
_HEADER_MAX_BYTES = 256 << 20  # more is no header
_COUNT_MAX = 10_000_000
_STRING, _ARRAY = 8, 9
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_KEPT_ITEMS = 4_096  # longer arrays are vocabularies: only their length is of interest


class Cursor:
    """Reads forward through a file in chunks."""

    def __init__(
        self, file: BinaryIO, *, max_bytes: int = _HEADER_MAX_BYTES, chunk_bytes: int = _CHUNK_BYTES
    ) -> None:
        """A file that asks for more than `max_bytes` is refused; `chunk_bytes` are read at once."""
        self._file = file
        self._max_bytes = max_bytes
        self._chunk_bytes = chunk_bytes
        self._data = b""
        self._at = 0
        self._read = 0

    def begin(self) -> tuple[int, int]:
        """Read the start of a file: the numbers of its tensors and of its keys."""
        magic, version = struct.unpack("<4sI", self.take(8))
        if magic != b"GGUF" or version < 2:
            raise ValueError("no GGUF file")
        tensors, keys = self.numbers("QQ")
        if max(tensors, keys) > _COUNT_MAX:
            raise ValueError("too many entries")
        return tensors, keys

    def value(self) -> object:
        """The value behind a key: a scalar; a short array as a list; of a long one its length."""
        (kind,) = self.numbers("I")
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.numbers(_FORMATS[kind])[0]
        item_kind, count = self.numbers("IQ")
        if count > _COUNT_MAX:
            raise ValueError("too long an array")
        if item_kind == _STRING:
            self.skip_texts(count)
            return count
        layout = f"{count}{_FORMATS[item_kind]}"
        if count > _KEPT_ITEMS:
            self.take(struct.calcsize(f"<{layout}"))
            return count
        return list(self.numbers(layout))

    def take(self, count: int) -> bytes:
        self._need(count)
        self._at += count
        return self._data[self._at - count : self._at]

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def text(self) -> str:
        (length,) = self.numbers("Q")
        return self.take(length).decode(errors="replace")

    def skip_texts(self, count: int) -> None:
        """Step over strings: the quick way through a vocabulary."""
        length_at = struct.Struct("<Q").unpack_from
        data, at = self._data, self._at
        for _ in range(count):
            if at + 8 > len(data) or at + 8 + length_at(data, at)[0] > len(data):
                self._at = at
                self._need(8)
                data, at = self._data, self._at
                self._need(8 + length_at(data, at)[0])
                data, at = self._data, self._at
            at += 8 + length_at(data, at)[0]
        self._at = at

    def _need(self, count: int) -> None:
        missing = self._at + count - len(self._data)
        if missing <= 0:
            return
        self._read += missing
        if self._read > self._max_bytes:
            raise ValueError("the header has no end")
        more = self._file.read(max(missing, self._chunk_bytes))
        if len(more) < missing:
            raise ValueError("the file ends in its header")
        self._data = self._data[self._at :] + more
        self._at = 0
