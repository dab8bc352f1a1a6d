"""Headers that pass from one side to the other, and what those of an answer say about its body.

Decides: which pass, and which of ours an engine's answer gets. Must not: read bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from tray_valet.core.commands import Lease
from tray_valet.core.dialects import Framing
from tray_valet.web.edge.answer_head import AnswerHead, Header, answer_head

Headers = list[Header]
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


class PassedHead(msgspec.Struct, frozen=True, kw_only=True):
    """The head of an engine's answer as its client gets it, and how the body is framed (None: not)."""

    answer: AnswerHead
    framing: Framing | None


def head_downstream(headers: tuple[Header, ...], lease: Lease) -> PassedHead:
    """The headers of an engine's answer that its client gets too, and who answered."""
    ref = lease.ref
    return _head_downstream(headers, ref.provider, ref.model, lease.reason)


@lru_cache(maxsize=128)  # an engine's answers have the same head, as a rule: their lengths are told apart
def _head_downstream(headers: tuple[Header, ...], provider: str, model: str, reason: str) -> PassedHead:
    passed = _passed_on(headers, _NOT_DOWNSTREAM)
    return PassedHead(
        answer=answer_head((*passed, *_headers_of(provider, model, reason))), framing=framing_of(headers)
    )


def head_of_ours(kind: bytes, lease: Lease) -> AnswerHead:
    """The head of an answer that we put into words, with who answered."""
    ref = lease.ref
    return answer_head(((b"content-type", kind), *_headers_of(ref.provider, ref.model, lease.reason)))


@lru_cache(maxsize=256)
def _headers_of(provider: str, model: str, reason: str) -> tuple[Header, ...]:
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


def is_short(length: int | None) -> bool:
    """Whether an answer of that length (None: not told) is no longer than what is kept of a stream anyway."""
    return length is not None and length <= _SHORT_BYTES


def framing_of(headers: Sequence[Header]) -> Framing | None:
    """How an answer is streamed; None = it is not."""
    for name, value in headers:
        if name == b"content-type":
            if value == _JSON:
                return None  # as most whole answers
            return _FRAMINGS.get(value.partition(b";")[0].strip().lower())
    return None


def _passed_on(headers: Sequence[Header], dropped: frozenset[bytes]) -> Headers:
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
