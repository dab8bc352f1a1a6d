"""`games --classify FILE`: what the valet makes of processes that are described in a file.

Decides: how such a file is read and what is wrong with it; the verdicts are `core/games.py`'s.
Must not: look at this machine's processes or libraries: a case says what its machine has.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from tray_valet.core.errors import InvalidValue, NotFound
from tray_valet.core.game_library import program_kind
from tray_valet.core.games import (
    CompiledRule,
    GameRule,
    LibraryIndex,
    Program,
    classify,
    compile_rules,
)
from tray_valet.core.processes import Process, ProcessIdentity, System

FILE_MAX_BYTES = 64 * 2**20


class LibraryCase(msgspec.Struct, frozen=True, kw_only=True):
    """An installed program of the described machine."""

    path: str
    store: str = ""
    installdir: str = ""
    name: str = ""
    appid: str | int = ""
    kind: str = "game"


class ProcessCase(msgspec.Struct, frozen=True, kw_only=True):
    """A described process; other fields (label, note) are for people."""

    exe: str
    id: str | int = ""
    os: System = System.LINUX
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    parent: str | None = None
    cwd: str = ""
    libraries: tuple[LibraryCase, ...] | None = None


def classify_file(
    path: Path, rules: Iterable[GameRule] = (), *, home: str = ""
) -> list[dict[str, str | int]]:
    """Judge every process that the JSON file describes, in its order, the user's rules first.

    Returns `{"id", "verdict", "name", "store", "rule"}` for each. Raises NotFound without the file, and
    InvalidValue naming the place (`FILE: [3].argv`) for one that is not as it should be.
    """
    compiled = compile_rules(rules, home=home)
    return [_judged(case, compiled) for case in _cases(path)]


def _judged(case: ProcessCase, rules: tuple[CompiledRule, ...]) -> dict[str, str | int]:
    index = LibraryIndex((_program(library) for library in case.libraries or ()), case.os)
    process = Process(
        identity=ProcessIdentity(0, 0),
        exe=case.exe,
        argv=case.argv,
        env=case.env,
        parent_name=case.parent or "",
        cwd=case.cwd,
    )
    found = classify(process, case.os, index, rules)
    return {
        "id": case.id,
        "verdict": found.verdict.value,
        "name": found.name,
        "store": found.store,
        "rule": str(found.rule),
    }


def _program(library: LibraryCase) -> Program:
    return Program(
        store=library.store.strip().lower(),
        path=library.path,
        installdir=library.installdir,
        name=library.name,
        appid=str(library.appid),
        kind=program_kind(library.kind),
    )


def _cases(path: Path) -> list[ProcessCase]:
    """Read the file; every mistake is told with the place where it is."""
    entries = _entries(path)
    cases = []
    for position, entry in enumerate(entries):
        try:
            cases.append(msgspec.convert(entry, ProcessCase))
        except msgspec.ValidationError as error:
            raise _mistake(path, position, error) from error
    return cases


def _entries(path: Path) -> list[object]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.", param="classify") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidValue(f"{path} cannot be read: {reason}.", param="classify") from error
    if len(data) > FILE_MAX_BYTES:
        raise InvalidValue(f"{path} is larger than {FILE_MAX_BYTES // 2**20} MB.", param="classify")
    try:
        content = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue(f"{path} is not valid JSON: {error}.", param="classify") from error
    if not isinstance(content, list):
        raise InvalidValue(
            f"{path} holds no list of processes.",
            remedy='Write [{"id": "1", "os": "linux", "exe": "/usr/bin/foo", "argv": ["foo"]}].',
            param="classify",
        )
    return content


def _mistake(path: Path, position: int, error: msgspec.ValidationError) -> InvalidValue:
    """msgspec says `… - at `$.argv[1]``: the place in the entry becomes the place in the file."""
    text, _, inner = str(error).partition(" - at `$")
    place = f"[{position}]{inner.rstrip('`')}"
    return InvalidValue(f"{path}: {place}: {text}.", remedy="Correct that entry.", param=place)
