"""Ollama's times: how long a model is kept, and what its answers say about it.

Decides: how a wish for a time to live is written for Ollama, and how `expires_at` is read.
Must not: look at a clock; the time now is handed in as Unix seconds.

Facts: api/types.go of Ollama, `Duration.UnmarshalJSON` (a number is seconds, a string a Go duration, less
than zero is for ever) and `ProcessModelResponse.ExpiresAt` (a Go time as RFC 3339 with nanoseconds).
For ever is now + MaxInt64 nanoseconds, about 292 years.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

DEFAULT_KEEP_ALIVE_S = 300.0  # envconfig.KeepAlive: OLLAMA_KEEP_ALIVE is 5m unless it is set
KEEP_FOREVER = -1
# Go's Duration ends at 292 years; nobody means a hundred years and minds that it becomes for ever.
_FOREVER_FROM_S = 100 * 365.25 * 86_400
# A keep_alive of 0 with an empty prompt is Ollama's unload: a wish to load must never round down to it.
_SHORTEST_S = 1.0
_RFC3339 = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[Tt ](?P<time>\d{2}:\d{2}:\d{2})(?P<fraction>\.\d+)?"
    r"(?P<offset>[Zz]|[+-]\d{2}:\d{2})"
)


def keep_alive_of(ttl_s: float | None) -> str | int | None:
    """Write a time to live (seconds, inf = for ever, None = Ollama's default) as a `keep_alive`.

    None means that the field is left out. Never 0, which would unload: one second at least.
    """
    if ttl_s is None:
        return None
    if math.isnan(ttl_s) or ttl_s >= _FOREVER_FROM_S:
        return KEEP_FOREVER
    return f"{max(ttl_s, _SHORTEST_S):.3f}s"


def ttl_left_s(expires_at: str | None, now_s: float) -> float | None:
    """Tell the seconds from `now_s` until Ollama unloads the model; None = it never does.

    0.0 while it is in use past its time, or about to go: the time is only set anew after the request.
    A missing time is none (look-alikes that never unload leave it out); Go's zero time stands for one
    that is not set yet, which becomes the default.
    """
    if not expires_at:
        return None
    at_s = unix_s(expires_at)
    if at_s is None:
        return DEFAULT_KEEP_ALIVE_S
    left_s = at_s - now_s
    return None if left_s >= _FOREVER_FROM_S else max(left_s, 0.0)


def unix_s(rfc3339: str) -> float | None:
    """Read an RFC 3339 time with any number of decimals as Unix seconds.

    None for Go's zero time (year 1) and for what is no time at all.
    """
    match = _RFC3339.fullmatch(rfc3339.strip())
    if match is None:
        return None
    offset = "+00:00" if match["offset"] in "Zz" else match["offset"]
    try:
        moment = datetime.fromisoformat(f"{match['date']}T{match['time']}{offset}")
        seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
    if moment.year <= 1:
        return None
    return seconds + float(match["fraction"] or 0)
