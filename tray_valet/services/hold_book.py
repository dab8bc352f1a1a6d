"""The book of holds: the one place where holds are placed, ended and overridden.

Decides: when a hold with a time limit or a process ends. Must not: evict or restore.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from tray_valet.core import events as ev
from tray_valet.core import holds as rules
from tray_valet.core.holds import Hold, Holds
from tray_valet.core.ports import Clock, ProcessTable

_PROCESS_CHECK_S = 0.5  # how soon the end of a hold's process is noticed


class HoldBook:
    """Owns the holds. `on_change` is called after every change, on the loop."""

    def __init__(
        self,
        clock: Clock,
        table: ProcessTable,
        record: Callable[[ev.Fact], None],
        on_change: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._table = table
        self._record = record
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._ids = itertools.count(1)
        self.holds = Holds()

    @property
    def in_effect(self) -> tuple[Hold, ...]:
        return rules.in_effect(self.holds)

    @property
    def wait_left_s(self) -> float:
        return rules.wait_left_s(self.holds, self._clock.monotonic_s())

    def is_overridden(self, hold_id: str) -> bool:
        return hold_id in self.holds.overridden

    def is_active(self, hold_id: str) -> bool:
        return any(h.id == hold_id for h in self.holds.active)

    def new_id(self, prefix: str) -> str:
        """An id that no active hold has."""
        while self.is_active(candidate := f"{prefix}-{next(self._ids)}"):
            pass
        return candidate

    def place(self, hold: Hold) -> None:
        """Place a hold; one that is there already takes over the newer cause, silently unless it ends at
        another time now."""
        before = next((h for h in self.holds.active if h.id == hold.id), None)
        self.holds = rules.place(self.holds, hold)
        if before is None or not rules.has_same_end(before, hold):
            self._record(ev.HoldPlaced(hold=hold))
        self._note()  # also when it took over: it may end at another time now

    def end(self, hold_id: str) -> None:
        """End a hold. Raises NotFound."""
        hold = rules.find(self.holds, hold_id)
        self.holds = rules.end(self.holds, hold_id, self._clock.monotonic_s())
        self._record(ev.HoldEnded(hold=hold))
        self._note()

    def override(self, hold_ids: frozenset[str]) -> None:
        """Keep running in spite of these holds."""
        self.holds = rules.override(self.holds, hold_ids)
        self._note()

    def resume_by_user(self) -> None:
        """The user's Resume; see `holds.resume_by_user`."""
        gone = [h for h in self.holds.active if rules.is_users_own(h)]
        self.holds = rules.resume_by_user(self.holds)
        for hold in gone:
            self._record(ev.HoldEnded(hold=hold))
        self._note()

    async def run(self) -> None:
        """End holds whose time is up or whose process has gone, until cancelled."""
        while True:
            self._changed.clear()
            self._end_finished()
            try:
                async with asyncio.timeout(self._next_check_s()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _end_finished(self) -> None:
        now_s = self._clock.monotonic_s()
        for hold in rules.expired(self.holds, now_s):
            self.end(hold.id)
        for hold in self.holds.active:
            if hold.process is not None and not self._table.is_alive(hold.process):
                self.end(hold.id)

    def _next_check_s(self) -> float | None:
        now_s = self._clock.monotonic_s()
        times = [max(0.0, h.expires_at_s - now_s) for h in self.holds.active if h.expires_at_s is not None]
        if any(h.process for h in self.holds.active):
            times.append(_PROCESS_CHECK_S)
        return min(times, default=None)

    def _note(self) -> None:
        self._changed.set()
        self._on_change()
