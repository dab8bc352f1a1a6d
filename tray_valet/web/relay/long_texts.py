"""The fields of a large body, without reading through the long texts in it.

Decides: which texts are passed over. What is in those the engine judges; all around them is checked as JSON.
Must not: change a byte: what comes out are views of the body.

A prompt of megabytes is one text, or a few (a document, a picture in base64). A JSON parser looks at each of
their bytes, and holds up every stream meanwhile. To look for the quotation mark at their end takes a tenth of
that time. So a short copy of the body is parsed that has marks instead of long texts, and what it has at a
field is found again in the body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tray_valet.web.edge.json_faults import MALFORMED

if TYPE_CHECKING:
    from tray_valet.web.relay.request_body import Fields

_LONG_BYTES = 16 * 1024
_BYTES_A_LOOK = 4096  # where quotation marks are closer together than that, the parser is quicker
_MOST_BACKSLASHES = 64  # before a quotation mark; a text that has more is somebody's test
_COMPARED_BYTES = 256
_QUOTE, _BACKSLASH = b'"', ord("\\")
_MARK, _MARK_END = b"\x7flong text ", b"\x7f"


class _Text(NamedTuple):
    """Where a text is in the body, without its quotation marks."""

    start: int
    end: int


def fields_of_large(body: bytes | memoryview, decode: Callable[[bytes | memoryview], Fields]) -> Fields:
    """The fields of the object that `body` is, as `decode` finds them; it raises what `decode` does.

    A view is one of the beginning of a bytearray (see `large_body.py`).
    """
    memory = body.obj if isinstance(body, memoryview) else body
    if not isinstance(memory, bytes | bytearray) or body[:_COMPARED_BYTES] != memory[:_COMPARED_BYTES]:
        return decode(body)
    texts = _long_texts(memory, len(body))
    if not texts:
        return decode(body)
    view = memoryview(body)
    short = _with_marks(view, texts)
    if short.count(_MARK) != len(texts):
        return decode(body)  # it speaks of our marks itself
    try:
        fields = decode(short)
        for name, raw in fields.items():
            if _MARK_END in name.encode(errors="replace"):
                return decode(body)
            fields[name] = _found_again(raw, view, texts)
    except MALFORMED:
        return decode(body)  # it tells the right place
    return fields


def _long_texts(body: bytes | bytearray, size: int) -> list[_Text]:
    """The long texts of the first `size` bytes, as far as it takes few looks to find them."""
    texts: list[_Text] = []
    start = 0  # of the text that is open; 0 = none is
    place = -1
    find = body.find
    for _ in range(size // _BYTES_A_LOOK):
        place = find(_QUOTE, place + 1, size)
        if place < 0:
            break
        if not start:
            start = place + 1
            continue
        if body[place - 1] == _BACKSLASH:
            backslashes = _backslashes(body, start, place)
            if backslashes % 2:
                continue
            if backslashes == _MOST_BACKSLASHES:
                break
        if place - start >= _LONG_BYTES:
            texts.append(_Text(start, place))
        start = 0
    return texts


def _backslashes(body: bytes | bytearray, start: int, place: int) -> int:
    """How many backslashes there are just before a place, in the text that begins at `start`."""
    if body[place - 2] != _BACKSLASH:
        return 1
    before = bytes(body[max(start, place - _MOST_BACKSLASHES) : place])
    return len(before) - len(before.rstrip(b"\\"))


def _with_marks(view: memoryview, texts: list[_Text]) -> bytes:
    pieces: list[bytes | memoryview] = []
    end = 0
    for number, text in enumerate(texts):
        pieces += (view[end : text.start], b"%b%d%b" % (_MARK, number, _MARK_END))
        end = text.end
    pieces.append(view[end:])
    return b"".join(pieces)


def _found_again(raw: msgspec.Raw, view: memoryview, texts: list[_Text]) -> msgspec.Raw:
    """The value in the body that has marks in `raw`; without marks it is the same."""
    short = bytes(raw)
    first = short.find(_MARK)
    if first < 0:
        return raw
    last = short.rfind(_MARK)
    last_end = short.index(_MARK_END, last + len(_MARK)) + len(_MARK_END)
    start = texts[_number_at(short, first)].start - first
    end = texts[_number_at(short, last)].end + len(short) - last_end
    return msgspec.Raw(view[start:end])


def _number_at(short: bytes, place: int) -> int:
    place += len(_MARK)
    return int(short[place : short.index(_MARK_END, place)])
