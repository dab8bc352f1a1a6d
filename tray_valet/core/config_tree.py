"""Settings before they are typed: values with the place each was written at.

Decides: how layers of settings lie over each other, and how a value's path and place read in a message.
Must not: know the schema, except that a change of a provider's `kind` replaces it whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from tray_valet.core.errors import SettingsProblem

SettingsPath = tuple[str | int, ...]


class Origin(StrEnum):
    """Where a value came from, from the weakest to the strongest."""

    FILE = "file"
    ENVIRONMENT = "environment"
    COMMAND_LINE = "command line"
    CHANGE = "change"  # asked for through the API or the window


class Place(msgspec.Struct, frozen=True):
    """Where a value was written. `name` is the variable's name, or the seeds' spelling of the key."""

    origin: Origin
    line: int | None = None  # 1-based, of the file
    name: str = ""

    def note(self) -> str:
        """What a message adds so that the value is found."""
        if not self.name:
            return ""
        if self.origin is Origin.ENVIRONMENT:
            return f" It is set by the environment variable {self.name}."
        return f" It is written as {self.name}."


class Node(msgspec.Struct, frozen=True):
    """A scalar, or a dict of str → Node, or a list of Node, with the place it was written at."""

    value: Any
    place: Place

    @property
    def entries(self) -> dict[str, Node]:
        """The entries of a mapping; {} for everything else."""
        return self.value if isinstance(self.value, dict) else {}

    def at(self, path: SettingsPath) -> Node | None:
        """The node at that path below this one, or None."""
        node: Node | None = self
        for step in path:
            if node is None:
                return None
            if isinstance(step, int):
                items = node.value if isinstance(node.value, list) else []
                node = items[step] if step < len(items) else None
            else:
                node = node.entries.get(step)
        return node

    def place_of(self, path: SettingsPath) -> Place:
        """The place of that path, or of the nearest thing above it that was written."""
        for length in range(len(path), -1, -1):
            node = self.at(path[:length])
            if node is not None:
                return node.place
        return self.place


def empty(origin: Origin) -> Node:
    """A layer that says nothing."""
    return Node({}, Place(origin))


def from_plain(value: Any, place: Place) -> Node:
    """Wrap plain dicts, lists and scalars; every key becomes text."""
    if isinstance(value, Mapping):
        return Node({str(key): from_plain(item, place) for key, item in value.items()}, place)
    if isinstance(value, list | tuple):
        return Node([from_plain(item, place) for item in value], place)
    return Node(value, place)


def to_plain(node: Node) -> Any:
    """The values alone."""
    if isinstance(node.value, dict):
        return {key: to_plain(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [to_plain(item) for item in node.value]
    return node.value


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"control.port": 0}` as `{"control": {"port": 0}}`; nested values stay as they are."""
    tree: dict[str, Any] = {}
    for dotted, value in flat.items():
        *above, last = dotted.split(".")
        inner = tree
        for step in above:
            inner = inner.setdefault(step, {})
        inner[last] = {**inner.get(last, {}), **nested(value)} if isinstance(value, Mapping) else value
    return tree


def lay_over(below: Node, above: Node) -> Node:
    """`above` over `below`: mappings key by key, everything else replaced.

    A mapping whose `kind` differs replaces the one below: their other keys do not belong together.
    """
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    kinds = (below.value.get("kind"), above.value.get("kind"))
    if kinds[0] is not None and kinds[1] is not None and kinds[0].value != kinds[1].value:
        return above
    merged = dict(below.value)
    for key, item in above.value.items():
        merged[key] = lay_over(merged[key], item) if key in merged else item
    return Node(merged, above.place if above.place.line is not None else below.place)


def put(tree: Node, path: SettingsPath, item: Node) -> Node:
    """`tree` with `item` at that path of keys; mappings on the way are made where they are missing."""
    if not path:
        return item
    entries = dict(tree.entries)
    step = str(path[0])
    entries[step] = put(entries.get(step, Node({}, item.place)), path[1:], item)
    return Node(entries, tree.place)


def without(tree: Node, path: SettingsPath) -> Node:
    """`tree` without the entry at that path."""
    step = str(path[0])
    if step not in tree.entries:
        return tree
    entries = dict(tree.entries)
    if len(path) == 1:
        del entries[step]
    else:
        entries[step] = without(entries[step], path[1:])
    return Node(entries, tree.place)


def leaves(tree: Node, path: SettingsPath = ()) -> Iterator[tuple[SettingsPath, Node]]:
    """Every value that is not a filled mapping, with its path."""
    if not tree.entries:
        yield path, tree
        return
    for key, item in tree.entries.items():
        yield from leaves(item, (*path, key))


def dotted(path: SettingsPath) -> str:
    """`("routes", "a", "candidates", 0, "model")` as `routes.a.candidates[0].model`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def problem(tree: Node, path: SettingsPath, message: str) -> SettingsProblem:
    """A mistake at that path, with the line or the variable where it was made."""
    place = tree.place_of(path)
    return SettingsProblem(path=dotted(path), message=message + place.note(), line=place.line)


def shown(value: Any) -> str:
    """A value as a message shows it: “eighty”, 40 characters at most."""
    text = {True: "true", False: "false", None: "null"}.get(value) if _is_word(value) else None
    if text is None:
        text = " ".join(str(value).split())
    return f"“{text[:39]}…”" if len(text) > 40 else f"“{text}”"


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)
