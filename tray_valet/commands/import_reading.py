"""The text of another program's settings: YAML or JSON into values with their lines.

Decides: what is read as what, as leniently as the programs themselves read (anchors, merge keys, comments
in JSON, keys written twice). Must not: know any program's settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tray_valet.core.config_tree import Node, Origin, Place
from tray_valet.core.errors import InvalidValue, NotFound
from tray_valet.core.import_env_file import env_file_of

_MAX_BYTES = 2**20
_MAX_NODES = 100_000
_MAX_DEPTH = 64
_JSON_NOISE = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|\t', re.DOTALL)
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class _Loader(yaml.SafeLoader):
    """Composes nodes; which scalar is what is decided here, as YAML 1.2 has it."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as PyYAML has it)


def read_text(path: Path) -> str:
    """The text of the file. Raises NotFound or InvalidValue."""
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise NotFound(f"{path} {what}.", remedy="Name the settings file of the other program.")
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(data) > _MAX_BYTES:
        raise InvalidValue(f"{path} is larger than 1 MB. Settings are not.")
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidValue(
            f"{path}, line {line}: this is not UTF-8 text.", remedy="Save it as UTF-8 and import again."
        ) from None


def parse_document(text: str, name: str) -> Node:
    """The values of a YAML or JSON file called `name`. Raises InvalidValue that names the line."""
    if text.lstrip()[:1] == "{":
        text = _JSON_NOISE.sub(_blanked, text)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _broken(name, mark.line + 1 if mark is not None else None, _said(error)) from None
    except yaml.reader.ReaderError as error:
        raise _broken(
            name, text[: error.position].count("\n") + 1, "a control character stands here"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _broken(name, None, f"it cannot be read ({error})") from None
    node = _Building(name).node(root, 0) if root is not None else Node({}, Place(Origin.FILE, 1))
    if not isinstance(node.value, dict):
        raise _broken(name, 1, "it does not hold keys and values")
    return node


def env_file_beside(path: Path) -> dict[str, str]:
    """The variables of a `.env` beside the file; {} without one that can be read."""
    try:
        file = path.with_name(".env")
        return dict(env_file_of(read_text(file))) if file.is_file() else {}
    except (InvalidValue, NotFound, OSError):
        return {}


def _blanked(match: re.Match[str]) -> str:
    """What is no JSON (comments) as spaces, so that lines stay what they are; texts as they are."""
    word = match[0]
    if word.startswith('"'):
        return word
    return re.sub(r"[^\n]", " ", word)


def _broken(name: str, line: int | None, why: str) -> InvalidValue:
    where = f"{name}, line {line}" if line is not None else name
    return InvalidValue(f"{where}: {why}.", remedy="Correct it there and import again.")


def _said(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem or "it cannot be read")
    if "'\\t'" in problem:
        return "a tab stands here, and YAML is indented with spaces"
    return f"this is neither YAML nor JSON ({problem})"


class _Building:
    """Nodes of ours from YAML's; counts, since aliases may repeat without end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = _MAX_NODES

    def node(self, node: yaml.Node, depth: int) -> Node:
        line = node.start_mark.line + 1
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            raise _broken(self._name, line, "the values are nested too deeply, or repeat each other")
        place = Place(Origin.FILE, line)
        if isinstance(node, yaml.MappingNode):
            return Node(self._entries(node, depth), place)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.node(item, depth + 1) for item in node.value], place)
        return Node(_scalar(node) if isinstance(node, yaml.ScalarNode) else None, place)

    def _entries(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        merged: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _broken(self._name, key.start_mark.line + 1, "a key must be text")
            if key.value == "<<" and key.style is None:
                sources = item.value if isinstance(item, yaml.SequenceNode) else [item]
                for source in sources:
                    built = self.node(source, depth + 1).entries
                    merged = {**built, **merged}
                continue
            value = self.node(item, depth + 1)
            place = Place(Origin.FILE, key.start_mark.line + 1)
            own[key.value] = Node(value.value, place)  # written twice: the last one counts, as there
        return {**merged, **own}


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style is None:
        return _plain(text)
    # JSON may write one character as two halves.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
