"""Being told to end while something must still be tidied up.

Decides: that the signals which end a program become an exception, and that a clean-up is not cut short.
Must not: tidy up; whoever uses this does.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A signal asked us to end; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def signals_raised() -> Iterator[None]:
    """Turn the signals that end a program into an exception, so that everything is cleaned up."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    previous = {number: signal.signal(number, interrupt) for number in _ending_signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Let the clean-up finish: it takes seconds, and half of it would leave things behind."""
    previous = {number: signal.signal(number, lambda *_: None) for number in _ending_signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ending_signals() -> list[int]:
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    there = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # What our parent has ignored (nohup) stays ignored.
    return [number for number in there if signal.getsignal(number) is not signal.SIG_IGN]
