"""Edits of the settings file that need it written anew: comments and order stay, the layout may not.

Decides: how the edits that cannot be made in place are made.
Must not: judge values, or write files. ruamel.yaml is loaded here alone, when it is needed.
"""

from __future__ import annotations

import io
import json
from typing import Any

import yaml

from tray_valet.core.config_changes import Edit
from tray_valet.core.config_tree import Node, SettingsPath, to_plain
from tray_valet.services.settings_edit import idle_switches, places_of

_IDLE = ("models", "idle_timeout_seconds")


def reflowed(text: str, edits: list[Edit], wanted: Node, *, is_json: bool = False) -> str:
    """The text with the edits made; `wanted` is the whole file (in our spellings) as it is to be.

    A value that was written under an older name is written under ours.
    """
    if is_json:
        document = json.loads(text)
        _edit(document, edits, wanted)
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    from ruamel.yaml import YAML
    from ruamel.yaml.util import load_yaml_guess_indent

    _, indent, offset = load_yaml_guess_indent(io.StringIO(text))
    writer = YAML(typ="rt")
    writer.preserve_quotes = True
    writer.width = 4096
    # The guess is of lists; mappings may be indented otherwise.
    writer.indent(mapping=_mapping_indent(text), sequence=(indent or 2) if offset else 2, offset=offset or 0)
    writer.explicit_start = text.startswith("---")
    document = writer.load(text.replace("\r\n", "\n"))
    _edit(document, edits, wanted)
    out = io.StringIO()
    writer.dump(document, out)
    return out.getvalue().replace("\n", "\r\n") if "\r\n" in text else out.getvalue()


def _mapping_indent(text: str) -> int:
    """By how many columns the first mapping below another one is indented."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for _, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            return int(value.value[0][0].start_mark.column)
    return 2


def _edit(document: Any, edits: list[Edit], wanted: Node) -> None:
    for edit in edits:
        for place in places_of(edit.path)[1:]:
            _remove(document, place)
        if edit.path == _IDLE:
            for switch in idle_switches():
                _remove(document, switch)
        if edit.is_removal:
            _remove(document, edit.path)
            continue
        _put(document, edit.path, edit.value)
        if edit.path[0] == "providers" and len(edit.path) > 2:
            kind = wanted.at((*edit.path[:2], "kind"))
            if kind is not None and "kind" not in document["providers"][edit.path[1]]:
                _put(document, (*edit.path[:2], "kind"), to_plain(kind))


def _put(document: Any, path: SettingsPath, value: Any) -> None:
    inner = document
    for step in path[:-1]:
        if not isinstance(inner.get(step), dict):
            inner[step] = {}
        inner = inner[step]
    inner[path[-1]] = value


def _remove(document: Any, path: SettingsPath) -> None:
    inner = document
    for step in path[:-1]:
        inner = inner.get(step) if isinstance(inner, dict) else None
    if isinstance(inner, dict) and path[-1] in inner:
        del inner[path[-1]]
        if not inner and path[0] in ("system", "api"):
            del document[path[0]]
