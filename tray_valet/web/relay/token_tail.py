"""How many tokens an answer cost, as its engine says at the end of it.

Decides: where the figures are looked for: in the last bytes of the answer, whole or streamed.
Must not: parse answers: they may be megabytes long, and the figures are not worth that.
"""

from __future__ import annotations

import re

from tray_valet.core.dialects import Framing

_KEPT_BYTES = 8 * 1024
MOST_BYTES = 4 * _KEPT_BYTES  # then all but so many are dropped
_HEAD_BYTES = _END_BYTES = 2048
_LINES_OF_TWO_EVENTS = 3 + 2 * 3  # after the end of a third: a name, the data, a blank line
_USAGE = b'"usage"'
_MARKS = (b'"prompt_eval_count"', b'"eval_count"', b'"timings"')
# A quotation mark inside a JSON text has a backslash before it, so that no text can look like these.
_PROMPT, _COMPLETION = (
    tuple(re.compile(rb'"%b"\s*:\s*(\d{1,12})' % name) for name in names)
    for names in (
        (b"prompt_tokens", b"input_tokens", b"prompt_eval_count", b"prompt_n"),
        (b"completion_tokens", b"output_tokens", b"eval_count", b"predicted_n"),
    )
)
_FRAMES = (b"data: [DONE]", b"message_stop", b"response.completed")
_ANTHROPIC = b"message_start"


class TokenTail:
    """Remembers the end of an answer."""

    __slots__ = ("_head", "_newlines", "framing", "kept")

    def __init__(self) -> None:
        self._head = b""
        self.kept = bytearray()  # of the answer; who adds to it by itself calls `trim` now and then
        self._newlines = 0  # in what was dropped
        self.framing: Framing | None = None  # of a stream, whose events are counted

    def add(self, piece: bytes) -> None:
        """Take the next bytes of the answer."""
        kept = self.kept
        kept += piece
        if len(kept) > MOST_BYTES:
            self.trim()

    def trim(self) -> None:
        """Drop all but the end, when more than `MOST_BYTES` are kept."""
        kept = self.kept
        if self.framing is not None:
            self._head = self._head or bytes(kept[:_HEAD_BYTES])
            self._newlines += kept.count(b"\n", 0, -_KEPT_BYTES)
        del kept[:-_KEPT_BYTES]

    def tokens(self) -> tuple[int | None, int | None]:
        """(prompt, completion); None = not told. A stream that tells nothing: its events are counted."""
        text = self.kept
        end = self._end_of(text)
        place = _place_of_figures(end)
        prompt = _figure(_PROMPT, end, place)
        completion = _figure(_COMPLETION, end, place)
        if self.framing is not None:
            head = self._head or bytes(text[:_HEAD_BYTES])
            if prompt is None and _ANTHROPIC in head:  # it tells it at the beginning
                prompt = _figure(_PROMPT, head, head.find(_USAGE))
            if completion is None:
                completion = self._events(head, text, end)
        return prompt, completion

    def _end_of(self, text: bytearray) -> bytes:
        """So much of the end that the figures are in it: they come with the last event, or the last but one.

        As a rule these are short; to look through more would cost more than all the rest.
        """
        if self.framing is not None:
            end = bytes(text[-_END_BYTES:])
            if end.count(b"\n") >= _LINES_OF_TWO_EVENTS:
                return end
        return bytes(text[-_KEPT_BYTES:])

    def _events(self, head: bytes, text: bytearray, end: bytes) -> int | None:
        """How many pieces of text came, as far as that can be told by line breaks; None = none."""
        newlines = self._newlines + text.count(b"\n")
        if self.framing is Framing.EVENTS:
            newlines //= 3 if head.startswith(b"event:") else 2
        return max(0, newlines - sum(mark in end for mark in _FRAMES)) if newlines else None


def _place_of_figures(text: bytes) -> int:
    """Where the figures begin that count; -1 = nowhere."""
    place = text.rfind(_USAGE)
    if place >= 0:
        return place
    return min((place for mark in _MARKS if (place := text.rfind(mark)) >= 0), default=-1)


def _figure(patterns: tuple[re.Pattern[bytes], ...], text: bytes, place: int) -> int | None:
    """The figure behind that place that has the first of these names."""
    if place >= 0:
        for pattern in patterns:
            if found := pattern.search(text, place):
                return int(found[1])
    return None
