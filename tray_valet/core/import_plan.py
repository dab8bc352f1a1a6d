"""Findings against our settings as they are: what changes, what is there already, what must stay.

Decides: that nothing which is set already is replaced unasked, and that no value is taken which our own
rules refuse (the rules themselves are `config_layers.build_settings`). Must not: read or write files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tray_valet.core.config_changes import apply_edits, edits_of, read_change
from tray_valet.core.config_layers import build_settings
from tray_valet.core.config_tree import Node, SettingsPath, dotted, shown, to_plain
from tray_valet.core.errors import SettingsError, SettingsProblem
from tray_valet.core.import_report import (
    Findings,
    ImportPlan,
    ImportSource,
    Item,
    Left,
    reference_to,
)

LOOPBACK = "127.0.0.1"  # where both APIs listen by default
_HOSTS: tuple[SettingsPath, ...] = (("control", "host"), ("router", "host"))
_REPLACE = "Import again with --replace to have the imported value."


def plan_import(
    source: ImportSource,
    findings: Findings,
    current: Node,
    *,
    known_secrets: Mapping[str, str],
    is_replacing: bool = False,
) -> ImportPlan:
    """Lay the findings over our settings, which must be right as they are.

    `known_secrets` are the keys that the keyring has, of those that the findings name. Raises
    SettingsError for mistakes that no finding made.
    """
    planning = _Planning(findings, current, known_secrets, is_replacing)
    planning.sort_out()
    planning.drop_what_is_refused()
    fresh = tuple(planning.fresh)
    kept = {
        item.secret_name: item.secret
        for item in (*fresh, *planning.already)
        if item.secret is not None and known_secrets.get(item.secret_name) != item.secret
    }
    return ImportPlan(
        source=source,
        taken=fresh,
        already=tuple(planning.already),
        left=tuple(planning.left),
        notes=(*findings.notes, *_about_the_default_provider(fresh, current)),
        change=change_of(fresh, current),
        secrets=kept,
    )


def change_of(items: Iterable[Item], current: Node) -> dict[str, Any]:
    """The items as one partial tree, with the `kind` of each provider that is not there yet."""
    tree: dict[str, Any] = {}
    for item in items:
        if item.kind is not None and current.at((*item.path[:2], "kind")) is None:
            _put(tree, (*item.path[:2], "kind"), item.kind.value)
        _put(tree, item.path, item.value)
    return tree


def _put(tree: dict[str, Any], path: SettingsPath, value: Any) -> None:
    *above, last = map(str, path)
    inner = tree
    for step in above:
        inner = inner.setdefault(step, {})
    there = inner.get(last)
    both = isinstance(there, dict) and isinstance(value, dict)
    inner[last] = {**there, **value} if both and there is not None else value


class _Planning:
    def __init__(
        self, findings: Findings, current: Node, known_secrets: Mapping[str, str], is_replacing: bool
    ) -> None:
        self.fresh: list[Item] = []
        self.already: list[Item] = []
        self.left: list[Left] = list(findings.left)
        self._items = findings.items
        self._current = current
        self._known_secrets = known_secrets
        self._is_replacing = is_replacing

    def sort_out(self) -> None:
        """Tell what is new from what is there already and from what is there with another value."""
        seen: dict[SettingsPath, Item] = {}
        for found in self._items:
            item = self._without_bad_entries(found)
            if item is None:
                continue
            if _holds_credentials(item):
                remedy = "Write the address without them; a key belongs in api_key."
                self._leave(item, "The address holds a user name or a password.", remedy)
                continue
            first = seen.setdefault(item.path, item)
            if (first.value, first.secret) != (item.value, item.secret):
                self._leave(item, f"It says otherwise than {first.source}, which counts.")
                continue
            there = self._current.at(item.path)
            if there is not None and self._has_other_secret(item) and not self._is_replacing:
                self._leave(item, f"{reference_to(item.secret_name)} holds another key already.", _REPLACE)
            elif _says(there, item.value):
                self.already.append(item)
            elif there is None or self._is_replacing or _is_compatible(there, item.value):
                self.fresh.append(item)
            else:
                present = _in_words(to_plain(there)) if item.secret is None else "another key"
                self._leave(item, f"{dotted(item.path)} is set already, to {present}.", _REPLACE)

    def _without_bad_entries(self, item: Item) -> Item | None:
        """A list without the entries that our rules refuse whatever else is set; None if none is left.

        Before it is compared: otherwise a second import would find another list than the first one wrote.
        """
        if not isinstance(item.value, list):
            return item
        bad = [p for p in self._mistakes(Node({}, self._current.place), [item]) if _is_blamed(item, p.path)]
        at = {position: p for p in bad if (position := _position(item, p.path)) is not None}
        for position, problem in sorted(at.items()):
            self._refuse(item, position, problem)
        rest = [one for position, one in enumerate(item.value) if position not in at]
        return None if at and not rest else _with_value(item, rest)

    def _has_other_secret(self, item: Item) -> bool:
        known = self._known_secrets.get(item.secret_name)
        return item.secret is not None and known is not None and known != item.secret

    def drop_what_is_refused(self) -> None:
        """Take out what our rules refuse, until the rest stands."""
        while problems := self._problems():
            before = len(self.left)
            for problem in problems:
                self._drop(problem)
            if len(self.left) == before:
                raise SettingsError(tuple(problems))

    def _problems(self) -> list[SettingsProblem]:
        return self._mistakes(self._current, self.fresh)

    def _mistakes(self, ground: Node, items: list[Item]) -> list[SettingsProblem]:
        try:
            change = read_change(change_of(items, ground))
            wanted = apply_edits(ground, edits_of(ground, change))
            build_settings(wanted, changed=[item.path for item in items])
        except SettingsError as error:
            return list(error.problems)
        return []

    def _drop(self, problem: SettingsProblem) -> None:
        blamed = [item for item in self.fresh if _is_blamed(item, problem.path)]
        if not blamed:
            blamed = [item for item in self.fresh if dotted(item.path).startswith(f"{problem.path}.")]
        for item in blamed:
            self._refuse(item, _position(item, problem.path), problem)
            self.fresh.remove(item)

    def _refuse(self, item: Item, position: int | None, problem: SettingsProblem) -> None:
        why, _, remedy = problem.message.partition(". ")
        source = item.source if position is None else f"{item.source}[{position}]"
        if item.path in _HOSTS:
            there = self._current.at(item.path)
            kept = there.value if there is not None else LOOPBACK
            remedy = f"{remedy} Until then it stays {kept}."
        self.left.append(Left(source, f"{why.rstrip('.')}.", remedy))

    def _leave(self, item: Item, why: str, remedy: str = "") -> None:
        self.left.append(Left(item.source, why, remedy))


def _is_blamed(item: Item, path: str) -> bool:
    own = dotted(item.path)
    return path == own or path.startswith((f"{own}.", f"{own}["))


def _position(item: Item, path: str) -> int | None:
    """The index of the one entry of a list that is at fault."""
    inside = path.removeprefix(dotted(item.path))
    if not isinstance(item.value, list) or not (inside.startswith("[") and inside.endswith("]")):
        return None
    return int(inside[1:-1]) if inside[1:-1].isdigit() else None


def _with_value(item: Item, value: Any) -> Item:
    return msgspec.structs.replace(item, value=value)


def _holds_credentials(item: Item) -> bool:
    """`http://user:password@host`: no such address is used, nor shown."""
    url = item.value.get("url") if isinstance(item.value, Mapping) else item.value
    is_url = item.path[-1] == "url" or isinstance(item.value, Mapping)
    return is_url and isinstance(url, str) and "@" in url.partition("//")[2].partition("/")[0]


def _in_words(value: Any) -> str:
    is_nested = isinstance(value, dict | list)
    return shown(msgspec.json.encode(value).decode() if is_nested else value)


def _says(there: Node | None, value: Any) -> bool:
    """Whether our settings say that already (and perhaps more)."""
    if there is None:
        return False
    if isinstance(value, Mapping):
        return isinstance(there.value, dict) and all(
            _says(there.entries.get(str(key)), item) for key, item in value.items()
        )
    return _is_same(to_plain(there), value)


def _is_compatible(there: Node, value: Any) -> bool:
    """Whether the value only adds to what is there."""
    if not isinstance(value, Mapping) or not isinstance(there.value, dict):
        return _is_same(to_plain(there), value)
    return all(
        key not in there.entries or _is_compatible(there.entries[key], item) for key, item in value.items()
    )


def _is_same(left: Any, right: Any) -> bool:
    """Equal, and true is not 1."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _about_the_default_provider(fresh: Iterable[Item], current: Node) -> list[str]:
    names = {str(item.path[1]) for item in fresh if item.path[0] == "providers"}
    section = current.at(("providers",))
    if not names or "ollama" in names or (section is not None and section.value is not None):
        return []
    return [
        "The settings named no providers until now, so an Ollama that answers was used. "
        "Now only those named are: add “ollama: {kind: ollama}” to them to keep it."
    ]
