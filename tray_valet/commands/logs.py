"""`logs [-f] [RUNNER]`: the valet's own log, or what a model's runner wrote last.

Decides: how lines are shown and followed. Must not: need a running valet for the valet's own log: it is
wanted most when the valet has ended.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from tray_valet.commands.client import Client
from tray_valet.commands.failures import CommandError, NoValet
from tray_valet.desktop.log_files import last_lines

_LOOK_EVERY_S = 0.3


def own(file: Path, *, is_following: bool, is_json: bool) -> None:
    """Print the end of the valet's log; with `is_following` also what is added, until Ctrl-C.

    Raises NoValet where there is no log, because no valet has run here yet; CommandError where it cannot
    be read.
    """
    try:
        opened = file.open("rb")
    except FileNotFoundError:
        raise NoValet from None
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror or error}.") from None
    for line in last_lines(opened):
        _show(line, is_json=is_json)
    if not is_following:
        opened.close()
        return
    for line in followed(file, opened):
        _show(line, is_json=is_json)


def runner(find_client: Callable[[], Client], name: str, *, is_following: bool, is_json: bool) -> None:
    """Print what the runner of the model `name` wrote last. Raises NoValet, ApiError (no such model)."""
    answer = find_client().get("/logs", runner=name)
    lines = list(answer.get("lines") or [])
    if is_json and not is_following:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    _print_all(lines, is_json=is_json)
    if not lines and not is_following:
        print(f"The runner of {name} has written nothing, or is not one of ours.")
    while is_following:
        time.sleep(_LOOK_EVERY_S)
        now = list(find_client().get("/logs", runner=name).get("lines") or [])
        _print_all(new_lines(lines, now), is_json=is_json)
        lines = now


def new_lines(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """What `now`, a tail that was cut at its front, has beyond `before`; all of it when they do not meet."""
    for skipped in range(len(before) + 1):
        kept = before[skipped:]
        if list(now[: len(kept)]) == list(kept):
            return list(now[len(kept) :])
    return list(now)


def followed(file: Path, opened: IO[bytes], pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Every line that is added behind where `opened` stands, through rotations of `file`, without end."""
    unfinished = b""
    try:
        while True:
            is_replaced = _is_replaced(file, opened)  # asked first: what comes before it is read below
            if data := opened.read():
                *whole, unfinished = (unfinished + data).split(b"\n")
                yield from map(_text, whole)
            elif is_replaced:
                opened.close()
                opened = file.open("rb")
            else:
                pause(_LOOK_EVERY_S)
    finally:
        opened.close()


def line_of(raw: str) -> str:
    """One line of the log as a person reads it; what is no JSON stays as it is."""
    try:
        entry = json.loads(raw)
        at = datetime.fromisoformat(entry["time"]).astimezone()
        text = f"{at:%Y-%m-%d %H:%M:%S} {str(entry['level']).upper():7} {entry['message']}"
    except (ValueError, KeyError, TypeError):
        return raw
    exception = entry.get("exception")
    return f"{text}\n{exception}" if exception else text


def _show(raw: str, *, is_json: bool) -> None:
    if raw:
        print(raw if is_json else line_of(raw), flush=True)


def _print_all(lines: Sequence[Any], *, is_json: bool) -> None:
    for line in lines:
        print(json.dumps(line, ensure_ascii=False) if is_json else line, flush=True)


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


def _is_replaced(file: Path, opened: IO[bytes]) -> bool:
    """Whether the log was rotated: another file has its name now."""
    try:
        now, ours = file.stat(), os.fstat(opened.fileno())
    except OSError:
        return False  # between the two steps of a rotation
    return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino) or now.st_size < opened.tell()
