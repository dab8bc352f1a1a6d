"""The real clock, behind the Clock port."""

from __future__ import annotations

import time


class SystemClock:
    """Time of this machine."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()
