"""Tables and cells for a terminal.

Decides: how columns line up and what a cell may hold. Must not: word sentences (`core/wording.py` does).
Spaces are plain ones here, so that output can be searched.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tray_valet.core.wording import size

_MB = 2**20
NOTHING = "-"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> str:
    """Rows under their heading, two spaces between columns; the columns named in `right` end flush."""
    cells = [[plain(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def plain(value: Any) -> str:
    """One line of printable text: names come from outside and may hold anything, escape codes included."""
    text = NOTHING if value is None or value == "" else str(value).replace("\u00a0", " ")
    return "".join(char if char.isprintable() else " " for char in text)


def gb(size_mb: float | None) -> str:
    """`17.3 GB` of the API's whole megabytes; `-` for none or unknown."""
    return plain(size(int(size_mb * _MB))) if size_mb else NOTHING


def pct(value: float | None) -> str:
    """`46.4%`; `-` for None."""
    return NOTHING if value is None else f"{value:.1f}%"


def as_json(value: Any) -> str:
    """What `--json` prints."""
    return json.dumps(value, indent=2, ensure_ascii=False)
