"""Cooldowns: the same command again within moments is refused, as a stuck key or a loop would give it.

Decides: which commands wait for each other (each for itself) and for how long.
Must not: hold back a command that failed: that one may be tried again at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tray_valet.core.errors import Cooldown
from tray_valet.core.ports import Clock

COOLDOWN_S = 2.0


class Cooldowns:
    """When each command was last given."""

    def __init__(self, clock: Clock, *, length_s: float = COOLDOWN_S) -> None:
        self._clock = clock
        self._length_s = length_s
        self._free_at_s: dict[str, float] = {}

    @contextmanager
    def once(self, command: str) -> Iterator[None]:
        """Give the command in this block. Raises Cooldown if it was given too short a time ago."""
        now_s = self._clock.monotonic_s()
        left_s = self._free_at_s.get(command, 0.0) - now_s
        if left_s > 0:
            raise Cooldown(
                f"The command “{command}” was given a moment ago.",
                retry_after_s=left_s,
                remedy=f"Try again in {self._length_s:g} seconds.",
            )
        free_at_s = now_s + self._length_s
        self._free_at_s[command] = free_at_s
        try:
            yield
        except BaseException:
            if self._free_at_s.get(command) == free_at_s:
                del self._free_at_s[command]
            raise
