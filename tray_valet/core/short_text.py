"""Texts that must fit: one line, and no longer than a place allows.

Decides: where a text is cut, and that the cut is seen. Must not: word anything.
"""

from __future__ import annotations

import unicodedata

_ELLIPSIS = "…"
_BREAKS = frozenset("\n\r\t\v\f\x85\u2028\u2029")


def one_line(text: str) -> str:
    """`text` on one line, without control or direction-changing characters (names come from outside)."""
    kept = (" " if c in _BREAKS else c for c in text)
    return "".join(c for c in kept if c in "\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def cut(text: str, limit: int) -> str:
    """`text` in at most `limit` UTF-16 units (what Windows counts), an ellipsis where it was cut."""
    if _units(text) <= limit:
        return text
    room, kept = limit - 1, ""
    for character in text:
        room -= _units(character)
        if room < 0:
            break
        kept += character
    return kept.rstrip() + _ELLIPSIS if limit > 0 else ""


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
