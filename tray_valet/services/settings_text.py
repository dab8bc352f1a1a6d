"""The text of the settings file: YAML into values with their lines.

Decides: what is read as what (YAML 1.2's rules: `on`, `off`, `yes`, `no` are words, 1:30 is no number)
and which files are refused before anything is built of them.
Must not: construct anything but text, numbers, true, false, null, lists and mappings, or know the schema.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tray_valet.core.config_tree import Node, Origin, Place, SettingsPath, dotted, shown
from tray_valet.core.errors import SettingsError, SettingsProblem

MAX_FILE_BYTES = 2**20
_MAX_DEPTH = 32
_MAX_NODES = 100_000  # aliases repeat what they name; this bounds the whole
_INT = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))


class _Loader(yaml.SafeLoader):
    """Composes nodes; which scalar is what is decided here, not by YAML 1.1's patterns."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as PyYAML has it)


def parse_settings(data: bytes, *, name: str = "config.yaml", origin: Origin = Origin.FILE) -> Node:
    """Parse a settings file; an empty one says nothing. Raises SettingsError with lines; `name` is the
    path under which mistakes of the whole file are told."""
    return _Reading(name, origin).read(_decoded(data, name))


def parse_value(text: str, place: Place) -> Node:
    """Parse one value given as YAML or JSON, such as `[a, b]`. Raises SettingsError named by the place."""
    node = _Reading(place.name, place.origin).value(text)
    return _placed(node, place)


def _placed(node: Node, place: Place) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _placed(item, place) for key, item in node.value.items()}, place)
    if isinstance(node.value, list):
        return Node([_placed(item, place) for item in node.value], place)
    return Node(node.value, place)


def _decoded(data: bytes, name: str) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise _error(name, f"The file is larger than {MAX_FILE_BYTES // 2**20} MB. Settings are not.", None)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _error(name, "The file is not UTF-8 text. Save it as UTF-8.", line) from None
    if text.lstrip()[:1] == "{" and "\t" in text:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return text
        return text.replace("\t", " ")  # JSON may be indented with tabs, YAML may not
    return text


def _error(name: str, message: str, line: int | None) -> SettingsError:
    return SettingsError((SettingsProblem(path=name, message=message, line=line),))


class _Reading:
    """One reading of one text."""

    def __init__(self, name: str, origin: Origin) -> None:
        self._name = name
        self._origin = origin
        self._problems: list[SettingsProblem] = []
        self._left = _MAX_NODES

    def read(self, text: str) -> Node:
        root = self._compose(text)
        if root is None:
            return Node({}, Place(self._origin, 1))
        tree = self._node(root, (), 1)
        if tree.value is None:
            tree = Node({}, tree.place)
        if not isinstance(tree.value, dict) and not self._problems:
            self._note(
                (), "The file does not hold keys and values. Write lines such as “log: {level: info}”.", 1
            )
        if self._problems:
            raise SettingsError(tuple(self._problems))
        return tree

    def value(self, text: str) -> Node:
        root = self._compose(text)
        node = Node(None, Place(self._origin)) if root is None else self._node(root, (), 1)
        if self._problems:
            raise SettingsError(tuple(self._problems))
        return node

    def _compose(self, text: str) -> Any:
        try:
            return yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise _error(self._name, _in_words(error), mark.line + 1 if mark is not None else None) from None
        except yaml.reader.ReaderError as error:
            line = text[: error.position].count("\n") + 1
            raise _error(
                self._name, "A control character stands here. Delete it, or type the line anew.", line
            ) from None
        except RecursionError:
            raise _error(self._name, "The values are nested too deeply.", None) from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise _error(self._name, f"This is not YAML: {error}.", None) from None

    def _note(self, path: SettingsPath, message: str, line: int) -> None:
        self._problems.append(SettingsProblem(path=dotted(path) or self._name, message=message, line=line))

    def _node(self, node: yaml.Node, path: SettingsPath, line: int) -> Node:
        place = Place(self._origin, line)
        self._left -= 1
        if len(path) > _MAX_DEPTH or self._left < 0:
            raise _error(self._name, "The values are nested too deeply, or repeat each other.", line)
        if node.tag not in _PLAIN_TAGS:
            self._note(path, f"The tag {shown(_short(node.tag))} is not used here. Leave it out.", line)
            return Node(None, place)
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path), place)
        if isinstance(node, yaml.SequenceNode):
            items = [
                self._node(item, (*path, i), item.start_mark.line + 1) for i, item in enumerate(node.value)
            ]
            return Node(items, place)
        return Node(_scalar(node) if isinstance(node, yaml.ScalarNode) else None, place)

    def _mapping(self, node: yaml.MappingNode, path: SettingsPath) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                said = shown(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "This"
                self._note(path, f"{said} is not text, and a key must be. Put it in quotes.", line)
                continue
            if key == "<<" and key_node.style is None:
                self._note(path, "Merge keys (<<) are not used here. Write the values out.", line)
                continue
            if key in entries:
                first = entries[key].place.line
                self._note((*path, key), f"“{key}” is written twice; the first is in line {first}.", line)
                continue
            entries[key] = self._node(value_node, (*path, key), line)
        return entries


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _in_words(error: yaml.MarkedYAMLError) -> str:
    said = str(error.problem or "it cannot be read")
    if "'\\t'" in said:
        return "A tab stands here. YAML is indented with spaces."
    if "expected a single document" in str(error.context):
        return "A second document begins here (“---”). Keep one."
    if "undefined alias" in said or "unhashable" in said:
        return f"This is not YAML: {said}. Write the value out."
    return f"This is not YAML: {said}. Look at the colons, the quotes and the indentation."
