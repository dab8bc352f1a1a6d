"""A head that came before: on one connection clients send the same one over and over, but for the length.

Decides: whether a request is the last one again, with another body. Must not: parse heads. llhttp has done it
once; the same bytes mean the same.
"""

from __future__ import annotations

import re
from typing import Any

from tray_valet.web.edge.policies import GuardPolicy
from tray_valet.web.edge.requests import KNOWN_KEY, RequestHead

_HEAD_END = b"\r\n\r\n"
_MOST_BYTES = 8 * 1024
_MOST_DIGITS = 7
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,7})\r\n", re.IGNORECASE)
# What makes more of a head than its bytes: another framing, a question back, another protocol.
_NOT_PLAIN = frozenset({b"transfer-encoding", b"expect", b"trailer"})
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_LENGTH_NAME = b"content-length"
_Headers = list[tuple[bytes, bytes]]


class KnownHead:
    """The head of a request that was whole in one piece, and what it meant."""

    __slots__ = (
        "_after",
        "_before",
        "_headers",
        "_length_at",
        "head",
        "memo",
        "names",
        "passed_by",
        "scope",
    )

    def __init__(self, before: bytes, after: bytes, scope: dict[str, Any]) -> None:
        self._before = before  # up to the figure of Content-Length
        self._after = after  # from there to the head's end
        self.scope = scope  # to read only, with the length of one of its requests
        self._headers: _Headers = scope["headers"].copy()
        names = [name for name, _ in self._headers]
        self._length_at = names.index(_LENGTH_NAME)
        self.names = frozenset(names)
        self.head: RequestHead | None = None  # with the length of one of its requests
        self.passed_by: GuardPolicy | None = None  # all checks but those of its key and its body
        self.memo: Any = None  # what those behind the guard have made of it, for the next time

    def body_in(self, data: bytes) -> bytes | None:
        """The body of a request with this head that `data` is, exactly; else None."""
        before = self._before
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self._after, end):
            return None
        begin = end + len(self._after)
        return data[begin:] if len(data) - begin == int(digits) else None

    def scope_for(self, body_bytes: int) -> dict[str, Any]:
        """What the server made of this head, for a request with a body of that length."""
        scope = self.scope.copy()
        headers = scope["headers"] = self._headers.copy()
        headers[self._length_at] = (_LENGTH_NAME, b"%d" % body_bytes)
        scope["state"], scope[KNOWN_KEY] = {}, self
        return scope


def known_head(data: bytes, scope: dict[str, Any]) -> KnownHead | None:
    """The head of the one request that `data` is, if there is no more to it than its bytes; else None.

    `scope` is what the server made of it, and is kept.
    """
    end = data.find(_HEAD_END, 0, _MOST_BYTES)
    if end < 0 or scope["http_version"] != "1.1" or _UPGRADE.search(data, 0, end) is not None:
        return None
    headers: _Headers = scope["headers"]
    names = [name for name, _ in headers]
    if not _NOT_PLAIN.isdisjoint(names) or names.count(_LENGTH_NAME) != 1:
        return None
    if any(value.lower() != b"keep-alive" for name, value in headers if name == b"connection"):
        return None
    found = list(_LENGTH.finditer(data, 0, end + 2))
    if len(found) != 1 or len(data) != end + len(_HEAD_END) + int(found[0][1]):
        return None
    start, stop = found[0].span(1)
    return KnownHead(data[:start], data[stop : end + len(_HEAD_END)], scope)
