"""The seeds' spellings: keys as llm-valet and RouterModelCustom wrote them, turned into ours.

Decides: which of our keys an older spelling means. Both spellings of one value must agree.
Must not: judge the values; they are checked under our names, and messages say how they were written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import msgspec

from tray_valet.core.config_flags import flags_from_params, with_flags
from tray_valet.core.config_providers import CommandModelSettings, LlamaServerModelSettings
from tray_valet.core.config_tree import (
    Node,
    Origin,
    Place,
    SettingsPath,
    dotted,
    put,
    shown,
    to_plain,
    without,
)
from tray_valet.core.errors import SettingsProblem
from tray_valet.core.models import ProviderKind

_ENGINE = ("providers", "local")
_IDLE = ("models", "idle_timeout_seconds")

# Both seeds had one flat section each: llm-valet the top level, RouterModelCustom `system`. A key is
# taken from there, and from our own section where it would stand today.
_RENAMED: tuple[tuple[str, SettingsPath], ...] = (
    ("max_concurrent_models", ("models", "max_concurrent")),
    ("preload_models", ("models", "preload")),
    ("idle_timeout_sec", _IDLE),
    ("model_name", ("models", "default")),
    ("request_timeout_sec", ("router", "request_timeout_seconds")),
    ("extra_allowed_hosts", ("control", "allowed_hosts")),
    ("log_file", ("log", "file")),
)
_MOVED: tuple[tuple[str, SettingsPath], ...] = (
    ("host", ("control", "host")),
    ("port", ("control", "port")),
    ("api_key", ("control", "api_key")),
    ("key_acknowledged", ("control", "key_acknowledged")),
    ("cors_origins", ("control", "cors_origins")),
    ("vram_multiplier", ("models", "vram_multiplier")),
    ("max_queue_size_per_model", ("router", "max_queue_size_per_model")),
)
_ENGINE_KEYS: tuple[tuple[str, str], ...] = (
    ("llama_server_path", "llama_server_path"),
    ("base_models_path", "base_models_path"),
    ("gpu_devices", "gpu_devices"),
    ("default_parallel", "default_parallel"),
    ("parallel_requests", "default_parallel"),
)


def seed_spellings() -> Iterator[tuple[SettingsPath, SettingsPath]]:
    """Every plain renaming: the older path, and the path of the same value today."""
    for old, ours in _RENAMED:
        yield (old,), ours
        yield ("system", old), ours
        yield (ours[0], old), ours
    for old, ours in _MOVED:
        yield (old,), ours
        yield ("system", old), ours
    for old, new in _ENGINE_KEYS:
        yield (old,), (*_ENGINE, new)
        yield ("system", old), (*_ENGINE, new)
    yield ("api", "host"), ("router", "host")
    yield ("api", "port"), ("router", "port")


class Translation:
    """One layer on its way from the seeds' spellings to ours; `problems` holds what contradicts itself."""

    def __init__(self, layer: Node) -> None:
        self.tree = layer
        self.problems: list[SettingsProblem] = []

    def run(self) -> Node:
        """Translate everything; returns the layer in our spellings."""
        for old, ours in seed_spellings():
            self._move(old, ours)
        self._idle_switch()
        self._seed_models()
        self._provider_keys()
        self._ollama_url()
        self._leftovers()
        return self.tree

    def _move(self, old: SettingsPath, ours: SettingsPath) -> None:
        node = self.tree.at(old)
        if node is None:
            return
        self.tree = without(self.tree, old)
        if ours == ("control", "api_key") and node.value == "":
            return  # llm-valet's way to say that there is none
        self._store(ours, node, dotted(old))
        if ours[: len(_ENGINE)] == _ENGINE:
            self._ensure_kind(_ENGINE, ProviderKind.LLAMA_SERVER, node)

    def _store(self, ours: SettingsPath, node: Node, spelled: str) -> None:
        """Put a value under our name; a different one that is there already is a contradiction."""
        place = node.place
        if place.origin is not Origin.ENVIRONMENT and spelled != dotted(ours):
            place = Place(place.origin, place.line, spelled)
        present = self.tree.at(ours)
        if present is not None and to_plain(present) != to_plain(node):
            self._contradiction(ours, node, spelled)
            return
        self.tree = put(self.tree, ours, Node(node.value, place))

    def _contradiction(self, ours: SettingsPath, node: Node, spelled: str) -> None:
        message = f"It is also written as {spelled}, with another value. Keep one of the two."
        self.problems.append(SettingsProblem(path=dotted(ours), message=message, line=node.place.line))

    def _ensure_kind(self, path: SettingsPath, kind: ProviderKind, cause: Node) -> None:
        present = self.tree.at((*path, "kind"))
        if present is None:
            self.tree = put(self.tree, (*path, "kind"), Node(kind.value, cause.place))
        elif present.value != kind.value:
            spelled = cause.place.name or "An older setting"
            message = f"{spelled} makes it a {kind.value}. Give this provider another name."
            line = present.place.line
            self.problems.append(SettingsProblem(path=dotted((*path, "kind")), message=message, line=line))

    def _leftovers(self) -> None:
        """What the seeds' sections still hold is known to nobody."""
        for section in ("system", "api"):
            node = self.tree.at((section,))
            if node is None:
                continue
            self.tree = without(self.tree, (section,))
            known = [str(old[1]) for old, _ in seed_spellings() if len(old) == 2 and old[0] == section]
            for key, item in node.entries.items():
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"Did you mean “{close[0]}”?" if close else "Leave it out."
                message = f"Unknown key “{key}”. {hint}"
                self.problems.append(
                    SettingsProblem(path=f"{section}.{key}", message=message, line=item.place.line)
                )
            if node.value is not None and not isinstance(node.value, dict):
                message = f"{shown(node.value)} stands where keys and values belong."
                self.problems.append(SettingsProblem(path=section, message=message, line=node.place.line))

    def _idle_switch(self) -> None:
        for old in (
            ("enable_idle_timeout",),
            ("system", "enable_idle_timeout"),
            ("models", "enable_idle_timeout"),
        ):
            node = self.tree.at(old)
            if node is None:
                continue
            self.tree = without(self.tree, old)
            if not isinstance(node.value, bool):
                message = f"{shown(node.value)} is neither true nor false."
                self.problems.append(SettingsProblem(path=dotted(old), message=message, line=node.place.line))
            elif node.value is False:
                self._switch_idle_off(old, node)

    def _switch_idle_off(self, old: SettingsPath, node: Node) -> None:
        present = self.tree.at(_IDLE)
        written_as_ours = present is not None and not present.place.name
        if present is not None and written_as_ours and present.value != 0:
            self._contradiction(_IDLE, node, dotted(old))
            return
        self.tree = without(self.tree, _IDLE)
        self._store(_IDLE, Node(0, node.place), dotted(old))

    def _seed_models(self) -> None:
        """`models: {alias: {model_path, …}}` and `system: {cpu_threads, flash_attention}`."""
        extra: list[Node] = []
        for key, flag in (("cpu_threads", "--threads"), ("flash_attention", "--flash-attn")):
            node = self.tree.at(("system", key))
            if node is not None:
                self.tree = without(self.tree, ("system", key))
                extra += [Node(flag, node.place), Node(str(node.value), node.place)]
        models = self.tree.at(("models",))
        for alias, node in list(models.entries.items()) if models is not None else []:
            if "model_path" not in node.entries:
                continue
            self.tree = without(self.tree, ("models", alias))
            self._ensure_kind(_ENGINE, ProviderKind.LLAMA_SERVER, node)
            fields = dict(self._with_params(node, ("models", alias)).entries)
            if extra:
                fields["flags"] = with_flags(fields.get("flags"), extra, node.place)[0]
            for name, value in fields.items():
                self._store((*_ENGINE, "models", alias, name), value, f"models.{alias}.{name}")

    def _provider_keys(self) -> None:
        """Older keys inside a provider: parallel_requests, params, ollama_url; numbers among flags."""
        providers = self.tree.at(("providers",))
        for name, node in list(providers.entries.items()) if providers is not None else []:
            path: SettingsPath = ("providers", name)
            if "parallel_requests" in node.entries:
                self._move((*path, "parallel_requests"), (*path, "default_parallel"))
            if "ollama_url" in node.entries:
                self._move((*path, "ollama_url"), (*path, "url"))
                self._ensure_kind(path, ProviderKind.OLLAMA, node)
            models = node.entries.get("models")
            for alias, model in models.entries.items() if models is not None else ():
                model_path = (*path, "models", alias)
                self.tree = put(self.tree, model_path, _as_words(self._with_params(model, model_path)))

    def _with_params(self, model: Node, path: SettingsPath) -> Node:
        params = model.entries.get("params")
        if params is None:
            return model
        fields = {key: value for key, value in model.entries.items() if key != "params"}
        flags, cpu_only, mistakes = flags_from_params(params, (*path, "params"))
        self.problems += mistakes
        place = Place(params.place.origin, params.place.line, dotted((*path, "params")))
        joined, contradicted = with_flags(fields.get("flags"), flags, place)
        for flag in contradicted:
            self._contradiction((*path, "flags"), params, f"params, the flag {flag}")
        fields["flags"] = joined
        if cpu_only and "cpu_only" not in fields:
            fields["cpu_only"] = Node(True, place)
        return Node(fields, model.place)

    def _ollama_url(self) -> None:
        for old in (("ollama_url",), ("system", "ollama_url")):
            if self.tree.at(old) is not None:
                node = self.tree.at(old)
                assert node is not None
                self._move(old, ("providers", "ollama", "url"))
                self._ensure_kind(("providers", "ollama"), ProviderKind.OLLAMA, node)
        named = self.tree.at(("provider",))
        if named is not None and named.value in (ProviderKind.OLLAMA, "", None):
            # llm-valet knew only this one; naming it means the Ollama at its address.
            self.tree = without(self.tree, ("provider",))
            if named.value == ProviderKind.OLLAMA:
                self._ensure_kind(("providers", "ollama"), ProviderKind.OLLAMA, named)


_WORD_LISTS = frozenset(
    field.encode_name
    for struct in (LlamaServerModelSettings, CommandModelSettings)
    for field in msgspec.structs.fields(struct)
    if field.encode_name in ("flags", "command", "stop")
)


def _as_words(model: Node) -> Node:
    """Numbers among the words of a command line as text: `[-ngl, 99]` is what people write."""
    fields = dict(model.entries)
    for key in _WORD_LISTS & fields.keys():
        if isinstance(fields[key].value, list):
            fields[key] = Node([_as_word(item) for item in fields[key].value], fields[key].place)
    if "env" in fields:
        env = fields["env"]
        fields["env"] = (
            Node({name: _as_word(item) for name, item in env.entries.items()}, env.place)
            if (env.entries)
            else env
        )
    return Node(fields, model.place) if fields else model


def _as_word(item: Node) -> Node:
    is_number = isinstance(item.value, int | float) and not isinstance(item.value, bool)
    return Node(str(item.value), item.place) if is_number else item
