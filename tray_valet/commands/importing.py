"""`import PATH`: the settings of llm-valet, RouterModelCustom or llama-swap into ours.

Decides: in which order an import reads, keeps and writes, and how it is told.
Must not: know what any setting means (`core/import_*.py` do), print, or write anything in a dry run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tray_valet.commands.config import Answer
from tray_valet.commands.import_reading import env_file_beside, parse_document, read_text
from tray_valet.commands.tables import plain, table
from tray_valet.core.config_tree import Node, dotted
from tray_valet.core.errors import InvalidValue, SettingsUnwritable
from tray_valet.core.import_plan import plan_import
from tray_valet.core.import_report import Ground, ImportPlan, Part, parts_of, plan_as_json
from tray_valet.core.import_source import read_document, source_of
from tray_valet.services.settings import SettingsStore
from tray_valet.services.settings_reading import read_file

_VALUE_CHARS = 60


class Keeper(Protocol):
    """Where keys are kept; see `desktop/secret_keeper.py`."""

    def read(self, name: str) -> str | None: ...

    def keep(self, name: str, secret: str) -> None: ...


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be imported into which settings file, and how."""

    path: Path
    settings_file: Path
    is_dry_run: bool = False
    is_replacing: bool = False
    is_json: bool = False


def import_settings(wish: Wish, environ: Mapping[str, str], keeper: Keeper) -> Answer:
    """Import the file. Exit code 0 when something was taken or is there already, else 1.

    Raises NotFound or InvalidValue where the file is none of the known ones or cannot be read,
    SettingsError where our own settings are broken, SettingsUnwritable.
    """
    if _is_same_file(wish.path, wish.settings_file):
        raise InvalidValue(
            f"{wish.path} is the settings file itself.",
            remedy="Name the other program's file, or another settings file with --config.",
        )
    document = parse_document(read_text(wish.path), str(wish.path))
    current = _current(wish.settings_file, environ)
    plan = _plan(wish, document, current, environ, keeper)
    written = None if wish.is_dry_run else _write(plan, wish.settings_file, environ, keeper)
    exit_code = 0 if plan.taken or plan.already or not plan.left else 1
    if wish.is_json:
        told = json.dumps(plan_as_json(plan, written=written), indent=2, ensure_ascii=False, default=str)
        return Answer(told, exit_code)
    return Answer(_in_words(plan, wish, written), exit_code)


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _current(file: Path, environ: Mapping[str, str]) -> Node:
    """Our file in our spellings; it must be right, since nothing is added to a broken one."""
    reading = read_file(file)
    if reading.error is not None:
        raise reading.error
    store = SettingsStore(file, environ)
    store.load()
    if store.problem is not None:
        raise store.problem
    return reading.tree


def _plan(
    wish: Wish, document: Node, current: Node, environ: Mapping[str, str], keeper: Keeper
) -> ImportPlan:
    source = source_of(document)
    ground = Ground(
        current=current,
        folder=str(wish.path.resolve().parent),
        environ=environ,
        env_file=env_file_beside(wish.path),
    )
    findings = read_document(source, document, ground)
    names = {item.secret_name for item in findings.items if item.secret is not None}
    known = {name: secret for name in sorted(names) if (secret := keeper.read(name)) is not None}
    return plan_import(source, findings, current, known_secrets=known, is_replacing=wish.is_replacing)


def _write(plan: ImportPlan, file: Path, environ: Mapping[str, str], keeper: Keeper) -> str | None:
    """Keys first: settings that name a key which is not there would shut clients out."""
    try:
        for name, secret in plan.secrets.items():
            keeper.keep(name, secret)
    except OSError as error:
        raise SettingsUnwritable(
            f"Not imported: a key cannot be kept ({error.strerror or error}).",
            remedy="Look at the disk's free space and at who owns the folder.",
        ) from error
    if not plan.change:
        return None
    SettingsStore(file, environ).update(plan.change)
    return str(file)


# -- words -------------------------------------------------------------------------------------------


def _in_words(plan: ImportPlan, wish: Wish, written: str | None) -> str:
    blocks = [f"{wish.path} holds the settings of {plan.source.value}."]
    took = "Would take" if wish.is_dry_run else "Took"
    for title, items in ((took, plan.taken), ("There already", plan.already)):
        if items:
            blocks.append(f"{title}:\n{_parts_table(parts_of(items))}")
    if plan.left:
        lines = [f"  {one.source}: {one.why} {one.remedy}".rstrip() for one in plan.left]
        blocks.append("Did not take:\n" + "\n".join(map(plain, lines)))
    if plan.notes:
        blocks.append("\n".join(plan.notes))
    blocks.append(_outcome(plan, wish, written))
    return "\n\n".join(blocks)


def _parts_table(parts: list[Part]) -> str:
    rows = [(part.source, dotted(part.path), _cut(part.value)) for part in parts]
    text = table(("THERE", "HERE", "VALUE"), rows)
    return "\n".join(f"  {line}" for line in text.splitlines())


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _VALUE_CHARS else f"{text[: _VALUE_CHARS - 1]}…"


def _outcome(plan: ImportPlan, wish: Wish, written: str | None) -> str:
    names = ", ".join(f"keyring:{name}" for name in plan.secrets)
    keys = f" Kept outside the settings: {names}." if plan.secrets else ""
    if wish.is_dry_run:
        return "Nothing was written: this was a dry run."
    if written is not None:
        return f"Written to {written}.{keys}"
    if plan.secrets:
        return f"The settings say all of that already.{keys}"
    if plan.already:
        return f"Nothing to change: {wish.settings_file} says all of that already."
    return "Nothing was taken, and nothing was written."
