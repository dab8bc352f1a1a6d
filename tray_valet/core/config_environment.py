"""The environment as a layer of settings.

Decides: which variable names which setting, and how a variable's text becomes a value of its type.
Must not: read the environment itself, or write anything from it anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec.inspect as shapes

from tray_valet.core.config_seeds import seed_spellings
from tray_valet.core.config_shapes import nearest, scalar_mistake, settings_type
from tray_valet.core.config_tree import Node, Origin, Place, SettingsPath, empty, put
from tray_valet.core.errors import SettingsError, SettingsProblem
from tray_valet.core.models import ProviderKind

PREFIX = "TRAY_VALET_"
ParseValue = Callable[[str, Place], Node]

# The seeds' variables with a fixed meaning; API_KEY is RouterModelCustom's bearer token.
_SEEDS: tuple[tuple[str, SettingsPath], ...] = (
    ("LLM_VALET_HOST", ("control", "host")),
    ("LLM_VALET_PORT", ("control", "port")),
    ("LLM_VALET_API_KEY", ("control", "api_key")),
    ("API_KEY", ("router", "api_keys", "environment")),
)
_ENGINE_PATHS = (("LLAMA_SERVER_PATH", "llama_server_path"), ("BASE_MODELS_PATH", "base_models_path"))
_DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def environment_layer(environ: Mapping[str, str], below: Node, parse: ParseValue) -> Node:
    """The layer that the variables make over `below` (the file, in our spellings).

    `parse` turns YAML or JSON text into a node. Raises SettingsError that names every wrong variable.
    """
    reading = _Reading(below, parse)
    for variable, path in _SEEDS:
        if environ.get(variable):
            reading.read(variable, path, environ[variable])
    for variable, key in _ENGINE_PATHS:
        if environ.get(variable):
            reading.engine_path(variable, key, environ[variable])
    if environ.get("LLM_VALET_PROVIDER"):
        reading.provider(environ["LLM_VALET_PROVIDER"])
    for variable in sorted(environ):
        if variable.upper().startswith(PREFIX):
            reading.own(variable, environ[variable])
    if reading.problems:
        raise SettingsError(tuple(reading.problems))
    return reading.layer


class _Reading:
    """One walk over the variables."""

    def __init__(self, below: Node, parse: ParseValue) -> None:
        self.layer = empty(Origin.ENVIRONMENT)
        self.problems: list[SettingsProblem] = []
        self._below = below
        self._parse = parse
        self._top = settings_type()

    def _report(self, variable: str, message: str) -> None:
        self.problems.append(SettingsProblem(path=variable, message=message))

    def own(self, variable: str, text: str) -> None:
        """One of ours: `TRAY_VALET_<SECTION>__<KEY>`."""
        steps = [step.lower() for step in variable[len(PREFIX) :].split("__")]
        if len(steps) == 1 and steps[0] not in {field.encode_name for field in self._top.fields}:
            return  # TRAY_VALET_HOME and its like are not settings
        older = {old: ours for old, ours in seed_spellings() if len(old) == len(steps)}
        path: SettingsPath | None = older.get(tuple(steps))
        if path is None:
            path = self._path_of(steps)
        if path is None:
            close = nearest("__".join(steps), ["__".join(names) for names in _known_paths(self._top)])
            meant = PREFIX + (close or "thresholds__ram_pause_pct").upper()
            hint = f" Did you mean {meant}?" if close else f" They read like {meant}."
            self._report(variable, f"No setting has that name.{hint}")
            return
        self.read(variable, path, text)

    def read(self, variable: str, path: SettingsPath, text: str) -> None:
        """Parse `text` as the type that the setting has, and put it into the layer."""
        place = Place(Origin.ENVIRONMENT, name=variable)
        kinds = _kinds_at(self._top, path)
        try:
            node = self._typed(text, kinds, path, place)
        except SettingsError as error:
            self._report(variable, " ".join(problem.message for problem in error.problems))
            return
        if isinstance(node, str):
            self._report(variable, node)
        elif node is not None:
            self.layer = put(self.layer, path, node)

    def engine_path(self, variable: str, key: str, text: str) -> None:
        """RouterModelCustom's paths hold for every llama-server provider; without one they say nothing."""
        providers = self._below.at(("providers",))
        for name, node in providers.entries.items() if providers is not None else ():
            kind = node.entries.get("kind")
            if kind is not None and kind.value == ProviderKind.LLAMA_SERVER:
                path: SettingsPath = ("providers", name, key)
                self.layer = put(self.layer, path, Node(text, Place(Origin.ENVIRONMENT, name=variable)))

    def provider(self, name: str) -> None:
        """llm-valet's choice of provider: one that is configured, or the Ollama at its address."""
        place = Place(Origin.ENVIRONMENT, name="LLM_VALET_PROVIDER")
        if self._below.at(("providers", name)) is not None:
            return
        if name == ProviderKind.OLLAMA:
            self.layer = put(self.layer, ("providers", name, "kind"), Node(name, place))
            return
        providers = self._below.at(("providers",))
        known = ", ".join(sorted({*(providers.entries if providers is not None else ()), "ollama"}))
        self._report("LLM_VALET_PROVIDER", f"No provider is called “{name[:40]}”. Use one of {known}.")

    def _path_of(self, steps: list[str]) -> SettingsPath | None:
        """The setting that the steps of a variable's name lead to; None if there is none."""
        path: SettingsPath = ()
        kinds: list[shapes.Type] = [self._top]
        for step in steps:
            fields = [name for kind in kinds for name in _field_names(kind)]
            if step in fields:
                path = (*path, step)
            elif any(isinstance(kind, shapes.DictType) for kind in kinds) and step:
                path = (*path, self._name_below(path, step))
            else:
                return None
            kinds = [inner for kind in kinds for inner in _inner(kind, str(path[-1]))]
        return path

    def _name_below(self, path: SettingsPath, step: str) -> str:
        """A provider's or alias's own spelling: variables know neither case nor “-” nor “.”."""
        for layer in (self._below, self.layer):
            node = layer.at(path)
            for name in node.entries if node is not None else ():
                if re.sub(r"[^a-z0-9]", "_", name.lower()) == step:
                    return name
        return step

    def _typed(
        self, text: str, kinds: list[shapes.Type], path: SettingsPath, place: Place
    ) -> Node | str | None:
        """The node, or the sentence about what is wrong."""
        stripped = text.strip()
        may_be_null = any(isinstance(kind, shapes.NoneType) for kind in kinds)
        plain = [kind for kind in kinds if not isinstance(kind, shapes.NoneType)]
        if may_be_null and stripped.lower() in ("", "null"):
            return Node(None, place)
        if any(isinstance(kind, _COMPOUND) for kind in plain):
            return self._compound(stripped, plain, place)
        value = _scalar(stripped, plain)
        if isinstance(value, str) and any(isinstance(kind, shapes.StrType) for kind in plain):
            value = text
        wrong = scalar_mistake(value, tuple(plain), path, None)
        return wrong if wrong else Node(value, place)

    def _compound(self, text: str, kinds: list[shapes.Type], place: Place) -> Node | str:
        wants_list = any(isinstance(kind, shapes.VarTupleType) for kind in kinds)
        if wants_list and not text.startswith(("[", "{", "-")):
            # A plain list of words, as people write it in a shell: a,b
            words = [word.strip() for word in text.split(",") if word.strip()]
            return Node([self._parse_word(word, kinds, place) for word in words], place)
        node = self._parse(text, place)
        if wants_list and not isinstance(node.value, list):
            return "It is not a list. Write [a, b]."
        if not wants_list and not isinstance(node.value, dict):
            return 'It does not hold keys and values. Write {"key": "value"}.'
        return node

    def _parse_word(self, word: str, kinds: list[shapes.Type], place: Place) -> Node:
        items = [kind.item_type for kind in kinds if isinstance(kind, shapes.VarTupleType)]
        return (
            Node(word, place)
            if any(isinstance(i, shapes.StrType) for i in items)
            else self._parse(word, place)
        )


_COMPOUND = (shapes.VarTupleType, shapes.DictType, shapes.StructType)


def _scalar(text: str, kinds: list[shapes.Type]) -> Any:
    """Text as the first type that can read it; the text itself where none can."""
    for kind in kinds:
        if isinstance(kind, shapes.BoolType) and text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        if isinstance(kind, shapes.IntType) and re.fullmatch(r"[-+]?[0-9]{1,18}", text):
            return int(text)
    if any(isinstance(kind, shapes.IntType | shapes.FloatType) for kind in kinds) and _DECIMAL.fullmatch(
        text
    ):
        return float(text)
    return text


def _flat(kind: shapes.Type) -> list[shapes.Type]:
    return list(kind.types) if isinstance(kind, shapes.UnionType) else [kind]


def _field_names(kind: shapes.Type) -> list[str]:
    if not isinstance(kind, shapes.StructType):
        return []
    tag = [kind.tag_field] if kind.tag_field is not None else []
    return [field.encode_name for field in kind.fields] + tag


def _inner(kind: shapes.Type, step: str) -> list[shapes.Type]:
    """The types that one step further down may have."""
    if isinstance(kind, shapes.DictType):
        return _flat(kind.value_type)
    if not isinstance(kind, shapes.StructType):
        return []
    if step == kind.tag_field:
        return [shapes.StrType()]
    return [inner for field in kind.fields if field.encode_name == step for inner in _flat(field.type)]


def _kinds_at(top: shapes.StructType, path: SettingsPath) -> list[shapes.Type]:
    kinds: list[shapes.Type] = [top]
    for step in path:
        kinds = [inner for kind in kinds for inner in _inner(kind, str(step))]
    return kinds


def _known_paths(top: shapes.StructType) -> list[tuple[str, ...]]:
    """Sections and their keys, for the nearest name to a wrong one."""
    paths: list[tuple[str, ...]] = []
    for field in top.fields:
        inner = field.type.fields if isinstance(field.type, shapes.StructType) else ()
        paths += [(field.encode_name, key.encode_name) for key in inner]
    return paths
