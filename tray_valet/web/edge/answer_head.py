"""The head of an answer, written out once for all answers that have the same one.

Decides: what may be in a header. Must not: know the length of a body: it differs from answer to answer, and
is said beside this.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

Header = tuple[bytes, bytes]
# Names of the headers that every answer of ours has: its own, or those of `answering.py`.
ALL_CARRY = frozenset(
    b"x-content-type-options referrer-policy x-frame-options cache-control content-security-policy".split()
)


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    """Headers, and the same as lines, each with its line break. `is_plain`: none of them is one that all
    answers of ours carry (`answering.py`)."""

    headers: tuple[Header, ...]
    lines: bytes
    is_plain: bool


@lru_cache(maxsize=128)
def answer_head(headers: tuple[Header, ...]) -> AnswerHead:
    """Write headers out. Raises RuntimeError where one has a line break in it."""
    lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
        raise RuntimeError("A header has a line break in it.")
    return AnswerHead(
        headers=headers, lines=lines, is_plain=ALL_CARRY.isdisjoint(name for name, _ in headers)
    )
