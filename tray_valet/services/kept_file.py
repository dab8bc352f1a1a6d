"""Files that an earlier run has left, read at the start.

Decides: what becomes of one that is damaged: it is put aside as `.damaged`, and said; it begins anew.
Must not: know what is in it, or raise: no file of ours may keep the valet from starting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


def read_kept(file: Path, decode: Callable[[bytes], _T], what: str) -> _T | None:
    """What `decode` makes of the file; None without one, or where it cannot be used.

    `what` begins a sentence: `The journal`. Blocks.
    """
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _LOG.error("%s (%s) cannot be read: %s", what, file, error)
        return None
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _put_aside(file, what, error)
        return None


def _put_aside(file: Path, what: str, error: Exception) -> None:
    aside = file.with_suffix(".damaged")
    try:
        file.replace(aside)
    except OSError as failure:
        _LOG.error("%s was damaged (%s) and cannot be put aside: %s", what, error, failure)
    else:
        _LOG.error("%s was damaged (%s); it is kept as %s, and a new one begins", what, error, aside)
