"""Durations as settings spell them for engines: seconds, or Go's `5m` and `1h30m`.

Decides: what such a value is in seconds. Must not: judge whether it is sensible (`config_checks.py` does).
Source: Go's `time.ParseDuration`; that a negative `keep_alive` means for ever: Ollama's `docs/api.md`.
"""

from __future__ import annotations

import math
import re

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(rf"([+-]?)((?:{_PART.pattern})+)")


def go_seconds(value: int | float | str | None) -> float | None:
    """Seconds of a `keep_alive`: a number, or a duration such as `5m`; negative is for ever (`math.inf`).

    None where nothing is set, or the text is no duration.
    """
    if value is None:
        return None
    seconds = _of_text(value.strip()) if isinstance(value, str) else float(value)
    if seconds is None or math.isnan(seconds):
        return None
    return math.inf if seconds < 0 else seconds


def _of_text(text: str) -> float | None:
    match = _WHOLE.fullmatch(text)
    if match is None:
        try:
            return float(text)
        except ValueError:
            return None
    total_s = sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(match[2]))
    return -total_s if match[1] == "-" else total_s
