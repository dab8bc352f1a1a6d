"""Headers that pass from one side to the other, and what those of an answer say about its body.

Decides: which pass, and which of ours an engine's answer gets. Must not: read bodies.
"""

from __future__ import annotations

from functools import lru_cache

from tray_valet.core.commands import Lease
from tray_valet.core.dialects import Framing

Headers = list[tuple[bytes, bytes]]
_ERROR = 400
# RFC 9110, 7.6.1, and what belongs to one hop or to us alone.
_NOT_UPSTREAM = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade host content-length authorization x-api-key api-key cookie "
    b"accept-encoding expect origin referer forwarded x-forwarded-for x-forwarded-host "
    b"x-forwarded-proto x-request-priority content-type sec-fetch-site sec-fetch-mode sec-fetch-dest "
    b"sec-fetch-user".split()
)
_NOT_DOWNSTREAM = frozenset(
    b"connection keep-alive proxy-authenticate proxy-connection te trailer transfer-encoding upgrade "
    b"server date set-cookie access-control-allow-origin access-control-allow-credentials "
    b"access-control-allow-methods access-control-allow-headers access-control-expose-headers "
    b"access-control-allow-private-network access-control-max-age "
    b"x-valet-provider x-valet-model x-valet-reason".split()  # another valet's: ours say who answered
)
_SHORT_BYTES = 64 * 1024
_JSON = b"application/json"
_UNBUFFERED = (b"x-accel-buffering", b"no")
_FRAMINGS = {
    b"text/event-stream": Framing.EVENTS,
    b"application/x-ndjson": Framing.LINES,
}


def headers_upstream(headers: Headers) -> Headers:
    """Those of a client's request that its engine gets too."""
    return _passed_on(headers, _NOT_UPSTREAM)


def headers_downstream(status: int, headers: Headers, lease: Lease, *, is_stream: bool) -> Headers:
    """Those of an engine's answer that its client gets too, and who answered."""
    passed = _passed_on(headers, _NOT_DOWNSTREAM)
    if is_stream or status >= _ERROR:
        passed = [pair for pair in passed if pair[0] != b"content-length"]
    passed += lease_headers(lease)
    return passed


def lease_headers(lease: Lease) -> tuple[tuple[bytes, bytes], ...]:
    ref = lease.ref
    return _headers_of(ref.provider, ref.model, lease.reason)


@lru_cache(maxsize=256)
def _headers_of(provider: str, model: str, reason: str) -> tuple[tuple[bytes, bytes], ...]:
    """What all answers carry: who answered, and why that one."""
    return (
        _UNBUFFERED,
        (b"x-valet-provider", _header_text(provider)),
        (b"x-valet-model", _header_text(model)),
        (b"x-valet-reason", _header_text(reason)),
    )


def _header_text(text: str) -> bytes:
    # Header values are Latin-1 at most and one line; reasons are sentences with typographic marks.
    if text.isascii() and text.isprintable():
        return text.encode()
    plain = text.translate({0x201C: '"', 0x201D: '"', 0x2019: "'", 0x2013: "-", 0x2014: "-", 0x2026: "..."})
    return "".join(char if " " <= char <= "~" else "?" for char in plain).encode()


def is_short(headers: Headers) -> bool:
    """Whether an answer says that it is no longer than what is kept of a stream anyway."""
    return any(
        name == b"content-length" and len(value) < 6 and int(value) <= _SHORT_BYTES for name, value in headers
    )


def framing_of(headers: Headers) -> Framing | None:
    """How an answer is streamed; None = it is not."""
    for name, value in headers:
        if name == b"content-type":
            if value == _JSON:
                return None  # as most whole answers
            return _FRAMINGS.get(value.partition(b";")[0].strip().lower())
    return None


def _passed_on(headers: Headers, dropped: frozenset[bytes]) -> Headers:
    """Without what is for one hop only: the known ones, and those that `Connection` names."""
    passed = []
    named: set[bytes] = set()
    for pair in headers:
        name, value = pair
        if name not in dropped:
            passed.append(pair)
        elif name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
            named.update(token.strip().lower() for token in value.split(b","))
    return [pair for pair in passed if pair[0] not in named] if named else passed
