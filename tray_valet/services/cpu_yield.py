"""Giving way on the CPU during a game: tells every provider when to begin and when to end.

Decides: that a game's hold in effect is the reason. Must not: touch a process (providers do).
"""

from __future__ import annotations

from collections.abc import Callable

from tray_valet.core.holds import Hold, HoldKind
from tray_valet.core.ports import Provider
from tray_valet.services.fleet import Fleet


class CpuYield:
    """Call `look` whenever holds or providers have changed. Lives on the loop."""

    def __init__(self, fleet: Fleet, in_effect: Callable[[], tuple[Hold, ...]]) -> None:
        """`in_effect()`: the holds that are not overridden."""
        self._fleet = fleet
        self._in_effect = in_effect
        self._told: dict[str, tuple[Provider, bool]] = {}

    @property
    def is_yielding(self) -> bool:
        """Whether a game has the machine now: what is loaded then is loaded in the background."""
        return any(hold.kind is HoldKind.GAME for hold in self._in_effect())

    def look(self) -> None:
        """Tell providers that were not told yet how it is now."""
        is_yielding = self.is_yielding
        for name, slot in self._fleet.slots.items():
            provider, was_yielding = self._told.get(name, (None, False))
            if (slot.provider is provider or not is_yielding) and is_yielding == was_yielding:
                continue
            slot.provider.yield_cpu(is_yielding)
            self._told[name] = (slot.provider, is_yielding)
            self._fleet.look_soon()
        self._told = {name: told for name, told in self._told.items() if name in self._fleet.slots}
