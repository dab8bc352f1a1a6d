"""Reading Valve's text files (.vdf, .acf) that may be broken, foreign, or huge.

Decides: what is refused before it is parsed, and why in one plain sentence.
Must not: know what the files are about (`steam.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

VDF_MAX_BYTES = 2 * 2**20  # Steam's largest text files of this kind are some 100 KB
_NESTING_MAX = 64
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_LINE_START = re.compile(r'["{}/]|#?[A-Za-z0-9_\-\\?$%<>]')  # what the parser takes for a start


class VdfError(Exception):
    """The file says nothing that can be relied on; the text is the reason."""


def read_vdf(path: Path) -> Mapping[str, object]:
    """Return the file's blocks, nested mappings of text. Raises VdfError, nothing else."""
    try:
        with path.open("rb") as file:
            data = file.read(VDF_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise VdfError(f"It cannot be read: {reason}.") from error
    if len(data) > VDF_MAX_BYTES:
        raise VdfError(f"It is larger than {VDF_MAX_BYTES // 2**20} MB.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise VdfError("It is not UTF-8 text.") from error
    _check(text)
    import vdf  # a few ms to import: only where there is a file to read

    try:
        content = vdf.loads(text)
    except (SyntaxError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise VdfError(f"It is damaged or cut off: {reason.removeprefix('vdf.parse: ')}.") from error
    if not isinstance(content, Mapping):
        raise VdfError("It holds no blocks.")
    return content


def _check(text: str) -> None:
    """Refuse what the parser takes long for: it reads on after each open quote, again from its start."""
    if not text.strip("\x00 \t\r\n"):
        raise VdfError("It is empty.")
    if "\x00" in text:
        raise VdfError("It is a binary file.")
    depth = 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("/"):
            continue
        bare = _QUOTED.sub("", line)
        if '"' in bare or not _LINE_START.match(line):
            raise VdfError(f"It is damaged or cut off in line {number}.")
        depth += bare.count("{") - bare.count("}")
        if depth > _NESTING_MAX:
            raise VdfError("Its blocks are nested too deep.")
