"""The history: keeps what the machine's figures were, from samples that are taken anyway.

Decides: which ring answers. Must not: take samples, or keep the machine or a GPU awake for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tray_valet.core.history import (
    FINE_INTERVAL_S,
    FINE_MINUTES,
    INTERVAL_S,
    MOST_MINUTES,
    History,
    Ring,
    check_minutes,
    point_of,
)
from tray_valet.core.metrics import MachineSample
from tray_valet.core.ports import Clock
from tray_valet.core.snapshot import SignalView
from tray_valet.core.watchdog import State

_MINUTE_S = 60.0


class HistoryBook:
    """Owns the rings. `note` is called on the loop with every sample, whoever wanted it."""

    def __init__(
        self, clock: Clock, signals: Callable[[], Sequence[SignalView]], state: Callable[[], State]
    ) -> None:
        self._clock = clock
        self._signals = signals
        self._state = state
        self._fine = Ring(FINE_INTERVAL_S, round(FINE_MINUTES * _MINUTE_S / FINE_INTERVAL_S) + 1)
        self._coarse = Ring(INTERVAL_S, MOST_MINUTES)

    def note(self, sample: MachineSample) -> None:
        """Add a sample that was just taken."""
        point = point_of(sample, self._signals(), self._state())
        self._fine.add(point)
        self._coarse.add(point)

    def over(self, minutes: int) -> History:
        """The last `minutes` (1 to 1440), in steps of ten seconds up to ten minutes, else of a minute.

        Raises InvalidValue.
        """
        ring = self._fine if check_minutes(minutes) <= FINE_MINUTES else self._coarse
        since = self._clock.wall_s() - minutes * _MINUTE_S
        return History(interval_s=ring.interval_s, points=ring.since(since))
