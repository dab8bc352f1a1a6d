"""Durations as people type them: what `2h` means.

Decides: the spellings and the range. Must not: wait. Import nothing heavy: the grammar needs this file.
"""

from __future__ import annotations

import re

_UNIT_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,6})?"
_WITH_UNITS = re.compile(rf"(?:{_NUMBER}[dhms])+")
_PART = re.compile(rf"({_NUMBER})([dhms])")
LONGEST_S = 366 * 86400.0


def parse_duration_s(text: str) -> float:
    """Seconds of `90`, `90s`, `5m`, `2h`, `1h30m` or `1d`; ValueError with a sentence for anything else.

    More than zero, a year at most; each unit once, the larger one first.
    """
    compact = text.strip().lower()
    parts = _PART.findall(compact) if _WITH_UNITS.fullmatch(compact) else []
    if re.fullmatch(_NUMBER, compact):
        parts = [(compact, "s")]
    units = [unit for _, unit in parts]
    if not parts or units != [unit for unit in _UNIT_S if unit in units]:
        raise ValueError(f"“{text}” is not a duration. Use 90s, 5m, 2h, 1h30m or 1d.")
    total_s = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if not 0 < total_s <= LONGEST_S:
        raise ValueError(f"“{text}” is out of range. Use more than 0 s and at most 366d.")
    return total_s
