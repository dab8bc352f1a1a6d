"""What a runner writes, kept in memory: the last lines, and the one that says why it failed.

Decides: how much is kept, and which line is telling. Must not: read pipes or log prompts anywhere else.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

KEPT_LINES = 200
_LINE_MAX_CHARS = 2_000

# Most telling first; llama.cpp ends with several lines that only repeat that something failed.
_TELLING = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"invalid (argument|value)|unknown (argument|value)|error while handling argument|expected value",
        r"out of memory|failed to allocate|unable to allocate|cannot allocate|bad_alloc",
        r"couldn't bind|address already in use",
        r"error loading model|unknown model architecture|invalid magic|failed to open|no such file",
        r"error while loading shared libraries|cannot start|traceback|illegal instruction|not installed",
        r"\b(error|fatal|failed|abort)",
    )
)
_PORT_IN_USE = _TELLING[2]
_LOG_PREFIX = re.compile(r"^(\d+\.)+\d+ [A-Z] +")  # “0.00.002.830 E ”, elapsed time and level


class RunnerLog:
    """The tail of one runner's output."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._unfinished = b""
        self.line_count = 0

    def feed(self, data: bytes) -> None:
        """Take in what was read from the pipe, in pieces of any size."""
        *whole, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in whole:
            self._add(line)
        if len(self._unfinished) > _LINE_MAX_CHARS:  # a line without an end must not fill the memory
            self._add(self._unfinished)
            self._unfinished = b""

    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first, 200 at most."""
        return (*self._lines, *filter(None, (_text(self._unfinished),)))[-KEPT_LINES:]

    def _add(self, line: bytes) -> None:
        self._lines.append(_text(line))
        self.line_count += 1


def telling_line(lines: Sequence[str]) -> str:
    """Return the line that best says why a runner failed; "" if there is none."""
    for pattern in _TELLING:
        for line in lines:
            if pattern.search(line):
                return _LOG_PREFIX.sub("", line).strip()
    return _LOG_PREFIX.sub("", lines[-1]).strip() if lines else ""


def says_port_in_use(lines: Sequence[str]) -> bool:
    """Say whether the runner ended because someone else has its port."""
    return any(map(_PORT_IN_USE.search, lines))


def _text(line: bytes) -> str:
    return line[:_LINE_MAX_CHARS].decode(errors="replace").rstrip()
