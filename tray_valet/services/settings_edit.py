"""Edits of the settings file's text that leave every other character as the user wrote it.

Decides: where in the text a value stands, and how a new value is written there.
Must not: judge values, or write files. The caller reads the result again and compares; what cannot be
done here raises `SpliceError`, and `settings_reflow.py` does it at the price of the layout.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tray_valet.core.config_changes import Edit
from tray_valet.core.config_seeds import seed_spellings
from tray_valet.core.config_tree import SettingsPath
from tray_valet.services.settings_list_edit import SpliceError, last_line, with_items

# Words that need no quotes under YAML 1.1 or 1.2.
_PLAIN_WORD = re.compile(r"(?!(?i:on|off|yes|no|y|n|true|false|null)$)[A-Za-z][A-Za-z0-9_./-]*")
_IDLE = ("models", "idle_timeout_seconds")


def spliced(text: str, edits: list[Edit], *, is_json: bool = False) -> str:
    """The text with the edits made. Raises SpliceError."""
    for edit in edits:
        text = _Splice(text, is_json).apply(edit)
    return text


def places_of(path: SettingsPath) -> list[SettingsPath]:
    """Where a setting may stand in the file: under our name, or under the seeds'."""
    places = [path, *(old for old, ours in seed_spellings() if ours == path)]
    if path[0] == "providers" and len(path) == 3:
        if path[2] == "default_parallel":
            places.append((*path[:2], "parallel_requests"))
        if path[2] == "url":
            places += [(*path[:2], "ollama_url")]
            places += [("ollama_url",), ("system", "ollama_url")] if path[1] == "ollama" else []
    return places


def idle_switches() -> tuple[SettingsPath, ...]:
    """Where the seeds' `enable_idle_timeout` may stand."""
    return (("enable_idle_timeout",), ("system", "enable_idle_timeout"), ("models", "enable_idle_timeout"))


class _Entry:
    """A key, its value, and the mapping they are in."""

    def __init__(self, mapping: yaml.MappingNode, key: yaml.Node, value: yaml.Node) -> None:
        self.mapping = mapping
        self.key = key
        self.value = value

    @property
    def is_own(self) -> bool:
        """False where an alias stands: the value is written elsewhere."""
        return bool(self.value.start_mark.index >= self.key.end_mark.index)


class _Splice:
    """One edit in one text."""

    def __init__(self, text: str, is_json: bool) -> None:
        self._text = text
        self._is_json = is_json
        self._root = yaml.compose(text, Loader=yaml.SafeLoader)

    def apply(self, edit: Edit) -> str:
        places = places_of(edit.path)
        found = next((entry for entry in map(self._find, places) if entry is not None), None)
        if edit.path == _IDLE and any(self._find(switch) is not None for switch in idle_switches()):
            raise SpliceError
        if edit.is_removal:
            if found is None or len(places) > 1:
                raise SpliceError
            return self._removed(found)
        if found is not None:
            return self._replaced(found, edit.value)
        return self._inserted(edit)

    def _find(self, path: SettingsPath) -> _Entry | None:
        node, entry = self._root, None
        for step in path:
            if not isinstance(node, yaml.MappingNode):
                return None
            pair = next((pair for pair in node.value if pair[0].value == step), None)
            if pair is None:
                return None
            entry = _Entry(node, *pair)
            node = entry.value
        return entry

    def _replaced(self, entry: _Entry, value: Any) -> str:
        node = entry.value
        if isinstance(node, yaml.SequenceNode) and not node.flow_style and isinstance(value, list) and value:
            if not entry.is_own:
                raise SpliceError
            return with_items(self._text, node, value, self._written)
        is_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
        if is_block or not entry.is_own or getattr(node, "style", None) in ("|", ">"):
            raise SpliceError
        start, end = node.start_mark.index, node.end_mark.index
        written = self._written(value)
        if self._text[start - 1 : start] == ":":
            written = " " + written
        return self._text[:start] + written + self._text[end:]

    def _inserted(self, edit: Edit) -> str:
        above, entry = 0, None
        for length in range(len(edit.path) - 1, 0, -1):
            entry = self._find(edit.path[:length])
            if entry is not None:
                above = length
                break
        rest = [str(step) for step in edit.path[above:]]
        node = entry.value if entry is not None else self._root
        if node is None or (isinstance(node, yaml.ScalarNode) and node.value in ("", "~", "null")):
            if entry is not None:
                return self._replaced(entry, _nest(rest, edit.value))
            # A file of comments, or of an empty document: our lines come after them.
            text = self._text
            if node is not None:
                text = text[: node.start_mark.index] + text[node.end_mark.index :]
            return self._ended(text.lstrip(" ")) + self._lines(rest, edit.value, 0)
        if not isinstance(node, yaml.MappingNode) or (entry is not None and not entry.is_own):
            raise SpliceError
        if node.flow_style:
            return self._into_flow(node, rest, edit.value)
        return self._into_block(node, rest, edit.value)

    def _into_flow(self, node: yaml.MappingNode, rest: list[str], value: Any) -> str:
        if not node.value:
            written = self._written(_nest(rest, value))
            return self._text[: node.start_mark.index] + written + self._text[node.end_mark.index :]
        at = node.value[-1][1].end_mark.index
        if node.value[-1][1].start_mark.index < node.value[-1][0].end_mark.index:
            raise SpliceError
        inner = self._written(value) if len(rest) == 1 else self._written(_nest(rest[1:], value))
        return f"{self._text[:at]}, {self._written(rest[0])}: {inner}{self._text[at:]}"

    def _into_block(self, node: yaml.MappingNode, rest: list[str], value: Any) -> str:
        line = last_line(node) + 1
        lines = self._ended(self._text).splitlines(keepends=True)
        column = node.value[0][0].start_mark.column
        return "".join(lines[:line]) + self._lines(rest, value, column) + "".join(lines[line:])

    def _removed(self, entry: _Entry) -> str:
        """Take a block entry's lines out; the only entry of a mapping, and flow, are left to others."""
        if entry.mapping.flow_style or len(entry.mapping.value) < 2 or not entry.is_own:
            raise SpliceError
        lines = self._text.splitlines(keepends=True)
        first, last = entry.key.start_mark.line, max(last_line(entry.value), entry.key.start_mark.line)
        if lines[first][: entry.key.start_mark.column].strip():
            raise SpliceError
        return "".join(lines[:first] + lines[last + 1 :])

    def _lines(self, rest: list[str], value: Any, column: int) -> str:
        """New lines of a block mapping, one key a line, the value itself on its key's line."""
        newline = "\r\n" if "\r\n" in self._text else "\n"
        while isinstance(value, dict) and len(value) == 1:
            key, value = next(iter(value.items()))
            rest = [*rest, key]
        lines = [f"{' ' * (column + 2 * i)}{self._written(key)}:" for i, key in enumerate(rest)]
        return newline.join(lines) + " " + self._written(value) + newline

    def _ended(self, text: str) -> str:
        if not text or text.endswith("\n"):
            return text
        return text + ("\r\n" if "\r\n" in text else "\n")

    def _written(self, value: Any) -> str:
        if isinstance(value, dict):
            pairs = (f"{self._written(str(key))}: {self._written(item)}" for key, item in value.items())
            return "{" + ", ".join(pairs) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(self._written, value)) + "]"
        if isinstance(value, str) and not self._is_json and _PLAIN_WORD.fullmatch(value):
            return value
        return json.dumps(value, ensure_ascii=False)


def _nest(steps: list[str], value: Any) -> Any:
    for step in reversed(steps):
        value = {step: value}
    return value
