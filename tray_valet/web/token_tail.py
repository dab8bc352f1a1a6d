"""How many tokens an answer cost, as its engine says at the end of it.

Decides: where the figures are looked for: in the last bytes of the answer, whole or streamed.
Must not: parse answers: they may be megabytes long, and the figures are not worth that.
"""

from __future__ import annotations

import re

_KEPT_BYTES = 8 * 1024
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


class TokenTail:
    """Remembers the end of an answer."""

    __slots__ = ("_events", "_head", "_kept_bytes", "_pieces")

    def __init__(self) -> None:
        self._head = b""
        self._pieces: list[bytes] = []
        self._kept_bytes = 0
        self._events = 0

    def add(self, piece: bytes, *, is_stream: bool) -> None:
        """Take the next bytes of the answer."""
        if is_stream:
            self._events += piece.count(b"\n\n") or piece.count(b"\n")
            if not self._head:
                self._head = piece[:2048]
        self._pieces.append(piece)
        self._kept_bytes += len(piece)
        if self._kept_bytes > 4 * _KEPT_BYTES:
            tail = b"".join(self._pieces)[-_KEPT_BYTES:]
            self._pieces = [tail]
            self._kept_bytes = len(tail)

    def tokens(self) -> tuple[int | None, int | None]:
        """(prompt, completion); None = not told. A stream that tells nothing: its events are counted."""
        pieces = self._pieces
        tail = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(tail) > _KEPT_BYTES:
            tail = tail[-_KEPT_BYTES:]
        place = _place_of_figures(tail)
        prompt = _figure(_PROMPT, tail, place)
        completion = _figure(_COMPLETION, tail, place)
        if prompt is None and self._head:  # Anthropic's streams tell it at the beginning
            prompt = _figure(_PROMPT, self._head, _place_of_figures(self._head))
        if completion is None and self._events:
            completion = max(0, self._events - sum(mark in tail for mark in _FRAMES))
        return prompt, completion


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
