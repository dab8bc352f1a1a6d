"""Several ways to show a notice, best first: the first that works is used, each time anew.

Decides: that a way which failed is followed by the next. Must not: know any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tray_valet.core.notices import ChoiceKind, Notice, Subject
from tray_valet.core.ports import Notifier


class NotifierChain:
    """Implements `core.ports.Notifier` by others. At least one way."""

    def __init__(self, ways: Sequence[Notifier]) -> None:
        self._ways = tuple(ways)
        self._last = self._ways[0]
        self._missing: str | None = None

    @property
    def source(self) -> str:
        return self._last.source

    @property
    def missing_because(self) -> str | None:
        return self._missing

    def listen(self, on_choice: Callable[[Subject, ChoiceKind], None]) -> None:
        for way in self._ways:
            way.listen(on_choice)

    async def show(self, notice: Notice, *, has_sound: bool) -> None:
        reasons = []
        for way in self._ways:
            await way.show(notice, has_sound=has_sound)
            if way.missing_because is None:
                self._last, self._missing = way, None
                return
            reasons.append(way.missing_because)
        self._missing = " ".join(reasons)

    async def withdraw(self, subject: Subject) -> None:
        for way in self._ways:
            await way.withdraw(subject)

    async def close(self) -> None:
        for way in self._ways:
            await way.close()
