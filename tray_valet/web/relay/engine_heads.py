"""The head of an engine's answer: its headers, and the first frame behind it.

Decides: what of a head is the same from one answer to the next, and so is read once. Must not: parse HTTP
(the parser's listener, `upstream_connection.py`, hands over lines).
"""

from __future__ import annotations

from functools import lru_cache

Headers = tuple[tuple[bytes, bytes], ...]
MAX_HEAD_BYTES = 64 * 1024
_BURST_BYTES = 1024  # what is shorter is parsed as quickly as it is cut
_LINE_AND_CHUNK = b"\n\r\n"  # ends a chunk of whole frames, and a head


def end_of_first_frame(data: bytes) -> int:
    """Where the first chunk ends that ends with a line, in a burst that begins with a head; 0 = it is no
    burst, or that is not in it."""
    if len(data) <= _BURST_BYTES:
        return 0
    head = data.find(_LINE_AND_CHUNK)
    end = data.find(_LINE_AND_CHUNK, head + 1, head + _BURST_BYTES) + len(_LINE_AND_CHUNK)
    return end if 0 <= head < end < len(data) else 0


@lru_cache(maxsize=128)  # an engine's heads are the same but for their length, for a second at least
def read_headers(lines: Headers) -> tuple[Headers, bool]:
    """The headers as `UpstreamResponse` has them, and whether the body comes in chunks. Raises ValueError."""
    if sum(len(name) + len(value) for name, value in lines) > MAX_HEAD_BYTES:
        raise ValueError("head too large")  # the parser makes an error of its own of it
    headers = tuple((name.lower(), value) for name, value in lines)
    is_in_chunks = any(name == b"transfer-encoding" for name, _ in headers)
    return tuple(pair for pair in headers if pair[0] != b"date"), is_in_chunks
