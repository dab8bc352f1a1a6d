"""`config path|check|schema|show`: the settings without a running valet.

Decides: what the four commands print and with which exit code they end.
Must not: print, or change anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tray_valet.core.config import Settings
from tray_valet.core.config_redaction import public_settings
from tray_valet.core.errors import SettingsError
from tray_valet.services.settings import SettingsStore


class Answer(msgspec.Struct, frozen=True):
    """What a command prints (without the last line's end) and its exit code, 0 or 1."""

    text: str
    exit_code: int = 0


def path(file: Path, *, is_json: bool = False) -> Answer:
    """Where the settings file is, or would be."""
    if is_json:
        return Answer(json.dumps({"path": str(file), "exists": file.exists()}))
    return Answer(str(file))


def check(file: Path, environ: Mapping[str, str], *, is_json: bool = False) -> Answer:
    """Every mistake in the file and the environment, one a line; exit code 1 if there is one."""
    store = SettingsStore(file, environ)
    store.load()
    problems = store.problem.problems if store.problem is not None else ()
    exit_code = 1 if problems else 0
    if is_json:
        found = [{"path": p.path, "line": p.line, "message": p.message} for p in problems]
        answer = {"path": str(file), "ok": not problems, "problems": found, "warnings": list(store.warnings)}
        return Answer(json.dumps(answer, ensure_ascii=False, indent=2), exit_code)
    lines = [str(problem) for problem in problems] + list(store.warnings)
    if problems:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines.insert(0, f"{file}: {count}.")
    elif file.exists():
        lines.insert(0, f"{file}: all right.")
    else:
        lines.insert(0, f"{file}: there is no such file, so the defaults are in force.")
    return Answer("\n".join(lines), exit_code)


def schema() -> Answer:
    """The settings file as a JSON schema, for editors and other programs."""
    return Answer(json.dumps(schema_object(), ensure_ascii=False, indent=2))


def schema_object() -> dict[str, Any]:
    """The JSON schema as an object."""
    shape = msgspec.json.schema(Settings)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tray Valet settings",
        **shape,
    }


def show(file: Path, environ: Mapping[str, str], *, is_json: bool = False) -> Answer:
    """The settings in force, in our spellings and without secrets.

    Raises SettingsError with every mistake if the file or the environment is wrong.
    """
    store = SettingsStore(file, environ)
    settings = store.load()
    if store.problem is not None:
        raise SettingsError(store.problem.problems)
    plain = public_settings(settings)
    if is_json:
        return Answer(json.dumps(plain, ensure_ascii=False, indent=2))
    import yaml

    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return Answer(text.rstrip("\n"))
