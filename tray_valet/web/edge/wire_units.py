"""How quantities are written on the wire: sizes, lengths of time, shares, points in time.

Decides: units and digits, the same at both APIs. Must not: know what is measured.
"""

from __future__ import annotations

from datetime import UTC, datetime

MIB, GIB = 2**20, 2**30  # what is called MB and GB on the wire


def rounded_s(seconds: float | None) -> float | None:
    """Seconds to the millisecond."""
    return None if seconds is None else round(seconds, 3)


def rounded_pct(pct: float | None) -> float | None:
    """Per cents to a tenth."""
    return None if pct is None else round(pct, 1)


def utc_text(unix_s: float) -> str:
    """A point in time (Unix seconds) as RFC 3339 writes it, in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
