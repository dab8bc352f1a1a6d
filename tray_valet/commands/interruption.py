"""Being told to end while something must still be tidied up.

Decides: when the signals that end a program become an exception, and that a clean-up is not cut short.
Must not: tidy up; whoever uses this does.

A signal may arrive between any two steps of Python, so one that is raised everywhere but in the clean-up
also comes just before it, or between making a thing and knowing of it. So it is the other way round: signals
are held back, save in the work that may be cut off anywhere.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A signal asked us to end; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class EndingSignals:
    """The signals that end a program: held back, save inside `raised`. Once one was raised, no other is."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._may_raise = False

    def raised(self) -> AbstractContextManager[None]:
        """Inside, a signal becomes Interrupted, as does one that was held back before."""
        return _Region(self, may_raise=True)

    def held(self) -> AbstractContextManager[None]:
        """Inside, also within `raised`, no signal is raised; there it is at the end."""
        return _Region(self, may_raise=False)

    def note(self, number: int, _frame: FrameType | None) -> None:
        """A signal came: the handler."""
        if self._first is None:
            self._first = number
        if self._may_raise:
            self.raise_noted()

    def change(self, *, may_raise: bool) -> bool:
        """Raise signals from here on, or hold them back; returns what was before."""
        before, self._may_raise = self._may_raise, may_raise
        return before

    def raise_noted(self) -> None:
        """Raise the signal that came, if one did."""
        if self._first is not None:
            self._may_raise = False  # what follows is clean-up
            raise Interrupted(self._first)


class _Region:
    """No generator: closing one that an Interrupted has left behind would raise once more, at any time."""

    def __init__(self, signals: EndingSignals, *, may_raise: bool) -> None:
        self._signals = signals
        self._may_raise = may_raise
        self._before = False

    def __enter__(self) -> None:
        self._before = self._signals.change(may_raise=self._may_raise)
        if self._may_raise:
            self._signals.raise_noted()

    def __exit__(self, *_: object) -> None:
        self._signals.change(may_raise=self._before)
        if self._may_raise or self._before:
            # Whatever the work made of it: one raised in a callback or a `__del__` is swallowed there.
            self._signals.raise_noted()


@contextmanager
def ending_signals() -> Iterator[EndingSignals]:
    """Take charge of the signals that end a program."""
    signals = EndingSignals()
    previous = {number: signal.signal(number, signals.note) for number in _ending_signals()}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ending_signals() -> list[int]:
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    there = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # What our parent has ignored (nohup) stays ignored.
    return [number for number in there if signal.getsignal(number) is not signal.SIG_IGN]
