"""What an import of another program's settings found: what it takes, what it leaves, and why.

Decides: the form in which findings are told. Must not: know any program's settings, or judge values
(`import_plan.py` does). Keys themselves stay out of every form that is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from tray_valet.core.config_tree import Node, SettingsPath, dotted
from tray_valet.core.models import ProviderKind


class ImportSource(StrEnum):
    """The programs whose settings can be imported."""

    LLM_VALET = "llm-valet"
    ROUTER_MODEL_CUSTOM = "RouterModelCustom"
    LLAMA_SWAP = "llama-swap"


class Part(msgspec.Struct, frozen=True):
    """One key of the other program among those that make up an item."""

    source: str
    path: SettingsPath
    value: Any


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A value of the other program (under `source` there) and where it goes in ours.

    `parts` tell where each piece of it comes from, where it is made of several keys. `kind` is the kind
    of the provider that the path leads into; `secret` is a key that goes to the keyring under
    `secret_name`, while `value` holds the reference to it.
    """

    source: str
    path: SettingsPath
    value: Any
    kind: ProviderKind | None = None
    parts: tuple[Part, ...] = ()
    secret: str | None = None
    secret_name: str = ""

    def __repr__(self) -> str:
        return f"Item({self.source!r} -> {dotted(self.path)!r})"


class Left(msgspec.Struct, frozen=True):
    """A key of the other program that is not taken: why, and what to do (may be "")."""

    source: str
    why: str
    remedy: str = ""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What an import starts from.

    `current` are our settings as they are, `folder` is where the other program's file lies (relative
    paths in it are taken from there), `environ` is for its `${env.NAME}`, and `env_file` are the
    variables in a `.env` beside it.
    """

    current: Node
    folder: str = ""
    environ: Mapping[str, str] = {}
    env_file: Mapping[str, str] = {}


class Findings:
    """Collects, in the order of the other program's file, what it says."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.left: list[Left] = []
        self.notes: list[str] = []

    def take(
        self,
        source: str,
        path: SettingsPath,
        value: Any,
        *,
        kind: ProviderKind | None = None,
        parts: Sequence[Part] = (),
    ) -> None:
        """A value that goes to that path of ours."""
        self.items.append(Item(source=source, path=path, value=value, kind=kind, parts=tuple(parts)))

    def take_secret(self, source: str, path: SettingsPath, name: str, secret: str) -> None:
        """A key: it goes to the keyring under `name`, the reference to it to that path."""
        item = Item(source=source, path=path, value=reference_to(name), secret=secret, secret_name=name)
        self.items.append(item)

    def leave(self, source: str, why: str, remedy: str = "") -> None:
        """A key that is not taken."""
        self.left.append(Left(source, why, remedy))


class ImportPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an import will do: `change` is a partial tree of our settings, {} when nothing changes.

    `secrets` (name → key) are to be kept before the change is written.
    """

    source: ImportSource
    taken: tuple[Item, ...]
    already: tuple[Item, ...]
    left: tuple[Left, ...]
    notes: tuple[str, ...]
    change: dict[str, Any]
    secrets: dict[str, str]

    def __repr__(self) -> str:  # the secrets
        return f"ImportPlan({self.source}, taken={self.taken!r}, left={self.left!r})"


def reference_to(name: str) -> str:
    """How the settings name a key that the keyring has."""
    return f"keyring:{name}"


def plan_as_json(plan: ImportPlan, *, written: str | None) -> dict[str, Any]:
    """The plan for programs; `written` is the file that it was written to, None = nothing was."""
    return {
        "source": plan.source.value,
        "taken": [_part_as_json(part) for part in parts_of(plan.taken)],
        "already": [_part_as_json(part) for part in parts_of(plan.already)],
        "not_taken": [{"from": one.source, "why": one.why, "remedy": one.remedy} for one in plan.left],
        "notes": list(plan.notes),
        "written": written,
    }


def parts_of(items: Iterable[Item]) -> list[Part]:
    """The items key by key, as they are told."""
    return [part for item in items for part in (item.parts or (Part(item.source, item.path, item.value),))]


def _part_as_json(part: Part) -> dict[str, Any]:
    return {"from": part.source, "to": dotted(part.path), "value": part.value}
