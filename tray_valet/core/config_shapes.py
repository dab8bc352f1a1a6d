"""The shape of the settings: is every key known, every value of its type and in its range?

Decides: what is wrong with a tree of values, with the words that name the fix, and what of it is usable.
Must not: judge values against each other (`config_checks.py` does), or coerce text into numbers.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from enum import Enum
from typing import Any

import msgspec
import msgspec.inspect as shapes

from tray_valet.core.config import Settings
from tray_valet.core.config_providers import SECRET_FIELDS
from tray_valet.core.config_tree import Node, SettingsPath, problem, shown
from tray_valet.core.errors import SettingsProblem

_UNUSABLE = object()
_Number = shapes.IntType | shapes.FloatType


def settings_type() -> shapes.StructType:
    """The schema as msgspec describes it."""
    described = shapes.type_info(Settings)
    assert isinstance(described, shapes.StructType)
    return described


class ShapeCheck:
    """One walk over a tree; `problems` fills while `usable` walks."""

    def __init__(self, tree: Node) -> None:
        self.problems: list[SettingsProblem] = []
        self.bad: set[SettingsPath] = set()
        self._tree = tree

    def usable(self) -> dict[str, Any]:
        """The tree as plain values without what is wrong in it; it always makes a `Settings`."""
        plain = self._struct(self._tree, settings_type(), ())
        return {} if plain is _UNUSABLE else plain

    def _report(self, path: SettingsPath, message: str) -> Any:
        self.problems.append(problem(self._tree, path, message))
        self.bad.add(path)
        return _UNUSABLE

    def _value(self, node: Node, kind: shapes.Type, path: SettingsPath, example: Any) -> Any:
        match kind:
            case shapes.UnionType():
                return self._union(node, kind, path, example)
            case shapes.StructType():
                return self._struct(node, kind, path)
            case shapes.DictType():
                return self._dict(node, kind, path)
            case shapes.VarTupleType() | shapes.ListType():
                return self._list(node, kind.item_type, path)
            case shapes.AnyType():
                return _plain_json(node)
            case _:
                wrong = scalar_mistake(node.value, (kind,), _label(path), example)
                if wrong:
                    return self._report(path, wrong)
                return float(node.value) if isinstance(kind, shapes.FloatType) else node.value

    def _union(self, node: Node, kind: shapes.UnionType, path: SettingsPath, example: Any) -> Any:
        members = tuple(member for member in kind.types if not isinstance(member, shapes.NoneType))
        if node.value is None and len(members) < len(kind.types):
            return None
        if len(members) == 1:
            return self._value(node, members[0], path, example)
        if all(isinstance(member, shapes.StructType) for member in members):
            return self._tagged(
                node, {str(m.tag): m for m in members if isinstance(m, shapes.StructType)}, path
            )
        wrong = scalar_mistake(node.value, members, _label(path), example)
        return self._report(path, wrong) if wrong else node.value

    def _tagged(self, node: Node, members: dict[str, shapes.StructType], path: SettingsPath) -> Any:
        if not isinstance(node.value, dict):
            return self._report(path, _not_a_mapping(node.value))
        kind = node.value.get("kind")
        choices = ", ".join(members)
        if kind is None:
            return self._report(path, f"“kind” is missing. Use one of {choices}.")
        if not isinstance(kind.value, str) or kind.value not in members:
            close = nearest(str(kind.value), members)
            hint = f" Did you mean “{close}”?" if close else ""
            return self._report(
                (*path, "kind"), f"{shown(kind.value)} is not a kind of provider. Use one of {choices}.{hint}"
            )
        return self._struct(node, members[kind.value], path)

    def _struct(self, node: Node, kind: shapes.StructType, path: SettingsPath) -> Any:
        if not isinstance(node.value, dict):
            return self._report(path, _not_a_mapping(node.value))
        plain: dict[str, Any] = {}
        if kind.tag_field is not None:
            plain[kind.tag_field] = kind.tag
        fields = {field.encode_name: field for field in kind.fields}
        for key in node.value:
            if key not in fields and key != kind.tag_field:
                self._report((*path, key), unknown_key(key, fields, path))
        for name, field in fields.items():
            if name in node.value:
                example = None if field.default is msgspec.NODEFAULT else field.default
                value = self._value(node.value[name], field.type, (*path, name), example)
                if value is not _UNUSABLE:
                    plain[name] = value
                    continue
            elif field.required:
                self._report(path, f"“{name}” is missing.")
            if field.required:
                return _UNUSABLE
        return plain

    def _dict(self, node: Node, kind: shapes.DictType, path: SettingsPath) -> Any:
        if isinstance(kind.value_type, shapes.AnyType):
            if not isinstance(node.value, dict):
                return self._report(path, _not_a_mapping(node.value))
            return _plain_json(node)
        if not isinstance(node.value, dict):
            return self._report(path, _not_a_mapping(node.value))
        plain = {}
        for key, item in node.value.items():
            value = self._value(item, kind.value_type, (*path, key), None)
            if value is not _UNUSABLE:
                plain[key] = value
        return plain

    def _list(self, node: Node, item_type: shapes.Type, path: SettingsPath) -> Any:
        if not isinstance(node.value, list):
            said = "" if _is_secret(path) else f"{shown(node.value)} is "
            return self._report(
                path, f"{said}not a list. Write [a, b], or one item a line after “- ”.".strip()
            )
        items = [self._value(item, item_type, (*path, i), None) for i, item in enumerate(node.value)]
        return _UNUSABLE if any(item is _UNUSABLE for item in items) else items


def scalar_mistake(
    value: Any, kinds: tuple[shapes.Type, ...], path: SettingsPath, example: Any
) -> str | None:
    """What is wrong with a value that should be of one of these scalar types; None if nothing is."""
    numbers = [kind for kind in kinds if isinstance(kind, _Number)]
    texts = [kind for kind in kinds if isinstance(kind, shapes.StrType)]
    for kind in kinds:
        match kind:
            case shapes.BoolType():
                return None if isinstance(value, bool) else f"{_said(value, path)} is neither true nor false."
            case shapes.EnumType():
                return _enum_mistake(value, kind, path)
    if texts and isinstance(value, str):
        return None
    if texts and numbers and not _is_number(value):
        return f"{_said(value, path)} is neither text nor a number."
    if not numbers:
        remedy = "Put it in quotes." if _is_number(value) else "Write text."
        return None if isinstance(value, str) else f"{_said(value, path)} is not text. {remedy}"
    return _number_mistake(value, numbers, path, example)


def _number_mistake(value: Any, kinds: list[Any], path: SettingsPath, example: Any) -> str | None:
    whole = all(isinstance(kind, shapes.IntType) for kind in kinds)
    hint = _range_hint(kinds[0], path, example)
    if not _is_number(value):
        try:
            float(value if isinstance(value, str) else "x")
        except ValueError:
            return f"{_said(value, path)} is not a number. {hint}"
        return f"{_said(value, path)} is text, not a number: leave the quotes out. {hint}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{_said(value, path)} is not a number. {hint}"
    if whole and not isinstance(value, int):
        return f"{_said(value, path)} is not a whole number. {hint}"
    limits = kinds[0]
    if (
        (limits.ge is not None and value < limits.ge)
        or (limits.gt is not None and value <= limits.gt)
        or (limits.le is not None and value > limits.le)
    ):
        return f"{_said(value, path)} is out of range. {hint}"
    return None


def _range_hint(kind: Any, path: SettingsPath, example: Any) -> str:
    low = kind.ge if kind.ge is not None else (1 if kind.gt == 0 else kind.gt)
    if low is None or kind.le is None:
        return "Use a number."
    unit = "\u00a0s" if str(path[-1]).endswith("_seconds") else ""
    such_as = f", such as {example}" if _is_number(example) else ""
    return f"Use {low:g} to {_whole(kind.le)}{unit}{such_as}."


def _enum_mistake(value: Any, kind: shapes.EnumType, path: SettingsPath) -> str | None:
    choices = [str(member.value) for member in kind.cls if isinstance(member, Enum)]
    if isinstance(value, str) and value in choices:
        return None
    close = nearest(str(value), choices)
    hint = f" Did you mean “{close}”?" if close else ""
    return f"{_said(value, path)} is none of {', '.join(choices)}.{hint}"


def unknown_key(key: str, fields: Iterable[str], path: SettingsPath) -> str:
    """The sentence about a key that is not known there: the nearest one, or where it belongs, or all."""
    known = list(fields)
    close = nearest(key, known)
    if close:
        return f"Unknown key “{key}”. Did you mean “{close}”?"
    owner = next((s.encode_name for s in settings_type().fields if key in _keys_of(s.type)), None)
    if owner is not None and path != (owner,):
        return f"Unknown key “{key}”. Did you mean “{owner}.{key}”?"
    return f"Unknown key “{key}”. Known here: {', '.join(known)}."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like this one, or None if none is."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), by_lower, n=1, cutoff=0.6)
    if not found:
        found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def _keys_of(kind: shapes.Type) -> tuple[str, ...]:
    return tuple(f.encode_name for f in kind.fields) if isinstance(kind, shapes.StructType) else ()


def _plain_json(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain_json(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [_plain_json(item) for item in node.value]
    return node.value


def _not_a_mapping(value: Any) -> str:
    said = "a list" if isinstance(value, list) else shown(value)
    return f"{said} stands where keys and values belong. Write them below it, indented, as “key: value”."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_secret(path: SettingsPath) -> bool:
    return any(step in SECRET_FIELDS for step in path)


def _label(path: SettingsPath) -> SettingsPath:
    return path or ("",)


def _said(value: Any, path: SettingsPath) -> str:
    if _is_secret(path):
        return "The value"
    if isinstance(value, dict | list):
        return "A list" if isinstance(value, list) else "A group of keys"
    return shown(value)


def _whole(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else str(number)
