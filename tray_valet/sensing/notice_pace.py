"""The pace of pressure notices: one a second at most.

Decides: when a notice is passed on. Must not: drop the last one; what comes too soon is told together
when its time has come, for it may be the one that matters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SHORTEST_INTERVAL_S = 1.0


class NoticePace:
    """Loop thread only. `close` forgets what is still to be told."""

    def __init__(self, on_notice: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """`on_notice` is called from `tell`, or later from the loop."""
        self._on_notice = on_notice
        self._loop = loop
        self._next_at_s = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def tell(self) -> None:
        """Pass a notice on: now, or a second after the one before, with all that came meanwhile."""
        if self._timer is not None or self._is_closed:
            return
        if self._loop.time() >= self._next_at_s:
            self._pass_on()
        else:
            self._timer = self._loop.call_at(self._next_at_s, self._pass_on)

    def close(self) -> None:
        """Tell nothing more, also if a thread's call comes late."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass_on(self) -> None:
        self._timer = None
        self._next_at_s = self._loop.time() + SHORTEST_INTERVAL_S
        self._on_notice()
