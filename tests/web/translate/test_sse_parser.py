"""Reading server-sent events: any pieces, any line ends."""

from __future__ import annotations

import pytest

from tray_valet.web.translate.sse_parser import SseParser


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_events_are_read_with_any_line_ends_and_pieces(newline: bytes, size: int) -> None:
    lines = b": hi\n\nevent: a\nid: 9\ndata: 1\ndata:2\n\ndata\n\nretry: 5\n\ndata: [x]\n\ndata: half"
    stream, parser = lines.replace(b"\n", newline), SseParser()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [event for piece in pieces for event in parser.events(piece)] == [
        (b"a", b"1\n2"),
        (b"", b""),
        (b"", b"[x]"),
    ]
