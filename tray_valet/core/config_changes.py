"""A change of the settings, asked for through the API or the window.

Decides: which settings may be changed that way, and which single edits of the file a change comes to.
Must not: write; `services/settings.py` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import msgspec.inspect as shapes

from tray_valet.core.config import Settings
from tray_valet.core.config_providers import CommandSettings
from tray_valet.core.config_seeds import Translation
from tray_valet.core.config_shapes import settings_type
from tray_valet.core.config_tree import (
    Node,
    Origin,
    Place,
    SettingsPath,
    dotted,
    from_plain,
    put,
    to_plain,
    without,
)
from tray_valet.core.errors import InvalidValue, SettingsError
from tray_valet.core.models import ProviderKind

# What runs or writes where it likes: commands, and llama-server's flags, which can name files to write.
_FILE_ONLY_IN_PROVIDER = frozenset({"llama_server_path"})
_FILE_ONLY_IN_MODEL = frozenset({"command", "env", "stop", "health", "flags", "model_path"})
_FILE_ONLY = frozenset({("log", "file")})
# The same for people and programs; `*` is any name. Providers of kind `command` are the file's as a whole.
FILE_ONLY_PLACES = (
    *(".".join(path) for path in sorted(_FILE_ONLY)),
    *(f"providers.*.{key}" for key in sorted(_FILE_ONLY_IN_PROVIDER)),
    *(f"providers.*.models.*.{key}" for key in sorted(_FILE_ONLY_IN_MODEL)),
)


class Edit(msgspec.Struct, frozen=True):
    """One edit of the file: a value at a path, or (`is_removal`) nothing there any more."""

    path: SettingsPath
    value: Any = None
    is_removal: bool = False


def read_change(partial: Mapping[str, Any]) -> Node:
    """A partial change in our spellings. Raises SettingsError if it contradicts itself."""
    translation = Translation(from_plain(partial, Place(Origin.CHANGE)))
    tree = translation.run()
    if translation.problems:
        raise SettingsError(tuple(translation.problems))
    return tree


def check_api_change(partial: Mapping[str, Any], current: Settings) -> None:
    """Raise InvalidValue, naming the path, if the change holds what only the file may say.

    That is: commands and the providers that run them, llama-server's path, flags and model files, the
    log's file, and keys themselves (a reference such as `keyring:openai` is fine).
    """
    change = read_change(partial)
    for path in _FILE_ONLY:
        if change.at(path) is not None:
            raise _file_only(path)
    _check_secret(change, ("control", "api_key"))
    for name in _entries(change, ("router", "api_keys")):
        _check_secret(change, ("router", "api_keys", name))
    for name in _entries(change, ("providers",)):
        _check_provider(change, name, current)


def _check_provider(change: Node, name: str, current: Settings) -> None:
    path: SettingsPath = ("providers", name)
    kind = change.at((*path, "kind"))
    present = (current.providers or {}).get(name)
    if isinstance(present, CommandSettings) or (kind is not None and kind.value == ProviderKind.COMMAND):
        raise _file_only(path)
    for key in _entries(change, path):
        if key in _FILE_ONLY_IN_PROVIDER:
            raise _file_only((*path, key))
    _check_secret(change, (*path, "api_key"))
    for model in _entries(change, (*path, "models")):
        for key in _entries(change, (*path, "models", model)):
            if key in _FILE_ONLY_IN_MODEL:
                raise _file_only((*path, "models", model, key))


def _check_secret(change: Node, path: SettingsPath) -> None:
    node = change.at(path)
    if node is not None and node.value is not None and not str(node.value).startswith("keyring:"):
        raise InvalidValue(
            "A key itself is not kept in the settings.",
            remedy="Store it with PUT /secrets/NAME and write keyring:NAME here.",
            param=dotted(path),
        )


def _entries(change: Node, path: SettingsPath) -> list[str]:
    node = change.at(path)
    return list(node.entries) if node is not None else []


def _file_only(path: SettingsPath) -> InvalidValue:
    return InvalidValue(
        f"{dotted(path)} can only be changed in the settings file.",
        remedy="`tray-valet config path` says where it is.",
        param=dotted(path),
    )


def edits_of(file: Node, change: Node) -> list[Edit]:
    """The edits that make the file (in our spellings) say what the change says.

    Values that are there already are left alone. null takes an entry out of a mapping of names
    (a provider, a route, a group …); elsewhere it is a value like any other.
    """
    return list(_edits(file, change, (), settings_type()))


def _edits(file: Node | None, change: Node, path: SettingsPath, kind: shapes.Type) -> Iterator[Edit]:
    for key, item in change.entries.items():
        here = (*path, key)
        there = file.entries.get(key) if file is not None else None
        if item.value is None and isinstance(kind, shapes.DictType):
            if there is not None:
                yield Edit(here, is_removal=True)
        elif item.entries and _is_mapping(there) and not _differs_in_kind(there, item):
            yield from _edits(there, item, here, _inner(kind, key))
        elif item.value == {} and there is not None and isinstance(there.value, dict):
            continue
        elif there is None or not _is_same(to_plain(there), to_plain(item)):
            yield Edit(here, to_plain(item))


def _is_mapping(there: Node | None) -> bool:
    """Whether entries can be put there one by one."""
    return there is None or isinstance(there.value, dict)


def _differs_in_kind(there: Node | None, item: Node) -> bool:
    kinds = [node.entries.get("kind") for node in (there, item) if node is not None]
    return len(kinds) == 2 and None not in kinds and kinds[0].value != kinds[1].value  # type: ignore[union-attr]


def _is_same(left: Any, right: Any) -> bool:
    """Equal, and true is not 1."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _inner(kind: shapes.Type, key: str) -> shapes.Type:
    """The type one step down, as far as it tells mappings of names from the rest."""
    if isinstance(kind, shapes.DictType):
        return kind.value_type
    members = kind.types if isinstance(kind, shapes.UnionType) else (kind,)
    for member in members:
        if isinstance(member, shapes.DictType):
            return member.value_type
        for field in member.fields if isinstance(member, shapes.StructType) else ():
            if field.encode_name == key:
                inner = field.type.types if isinstance(field.type, shapes.UnionType) else (field.type,)
                found = [one for one in inner if isinstance(one, shapes.DictType | shapes.StructType)]
                if found:
                    return found[0] if len(found) == 1 else field.type
    return shapes.AnyType()


def apply_edits(file: Node, edits: list[Edit]) -> Node:
    """The file (in our spellings) as it will be after the edits."""
    tree = file
    for edit in edits:
        if edit.is_removal:
            tree = without(tree, edit.path)
        else:
            tree = put(tree, edit.path, from_plain(edit.value, Place(Origin.CHANGE)))
    return tree
