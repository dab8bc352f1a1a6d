"""The log: JSON lines in rotating files (5 MB × 3), and plain lines on a terminal.

Decides: form and places of the log, and how much of its end is shown. Must not: decide what is logged.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

_MAX_BYTES = 5 * 2**20
_BACKUPS = 2  # beside the current one: three files in all
_TAIL_LINES = 200
_TAIL_BYTES = 512 * 1024
_LOG = logging.getLogger(__name__)
_NOISY = ("httpx", "httpcore", "uvicorn", "asyncio", "PIL")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if fact := getattr(record, "fact", None):
            entry["fact"] = str(fact)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def start_log(log_file: Path, level: str, *, file: str | None = None, is_verbose: bool = False) -> Path:
    """Send the log to a file (`file` if given, else `log_file`) and to stderr: there only what is wrong,
    unless `is_verbose`. Returns the file: `log_file` also where `file` cannot be written, which is said."""
    path = Path(file).expanduser() if file else log_file
    refusal: OSError | None = None
    try:
        to_file = _opened(path)
    except OSError as error:
        if path == log_file:
            raise
        path, refusal = log_file, error
        to_file = _opened(log_file)
    to_file.setFormatter(_JsonLines())
    handlers: list[logging.Handler] = [to_file]
    if sys.stderr is not None:  # None: started without a console (pythonw)
        to_terminal = logging.StreamHandler(sys.stderr)
        to_terminal.setLevel(logging.NOTSET if is_verbose else logging.WARNING)
        to_terminal.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
        handlers.append(to_terminal)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    if refusal is not None:
        why = refusal.strerror or refusal
        _LOG.warning("log.file: %s cannot be written (%s). The log is in %s instead", file, why, path)
    return path


def _opened(path: Path) -> RotatingFileHandler:
    path.parent.mkdir(parents=True, exist_ok=True)
    return RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_BACKUPS, encoding="utf-8")


def log_path(log_file: Path, file: str | None) -> Path:
    """Where the log is to be read: the settings' `log.file`, but `log_file` where only that is there."""
    path = Path(file).expanduser() if file else log_file
    return log_file if log_file.is_file() and not path.is_file() else path


def log_tail(path: Path) -> tuple[str, ...]:
    """The last lines of a log file, oldest first, 200 at most; () where it cannot be read."""
    try:
        with path.open("rb") as file:
            return tuple(last_lines(file))
    except OSError:
        return ()


def last_lines(file: IO[bytes]) -> list[str]:
    """The last whole lines of an open log; it stands behind them then, for what is added."""
    size_bytes = os.fstat(file.fileno()).st_size
    start_bytes = max(0, size_bytes - _TAIL_BYTES)
    file.seek(start_bytes)
    *whole, unfinished = file.read().split(b"\n")
    file.seek(-len(unfinished), os.SEEK_CUR)
    if start_bytes:
        whole = whole[1:]  # cut somewhere in the middle
    return [line.decode(errors="replace").rstrip("\r") for line in whole[-_TAIL_LINES:]]
