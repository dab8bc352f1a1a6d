"""RouterModelCustom's `config.json` in our settings, in both of its forms.

Decides: where each of its keys goes: models with typed `params` (its main branch) and models with the
`flags` of llama-server (its refactor branch). Must not: judge values; our own rules do (`import_plan.py`).
Source: RouterModelCustom's README on both branches, “Configuration Reference”.
"""

from __future__ import annotations

from typing import Any

from tray_valet.core.config_flags import flags_from_params, with_flags
from tray_valet.core.config_shapes import nearest
from tray_valet.core.config_tree import Node, SettingsPath, dotted, shown, to_plain
from tray_valet.core.errors import InvalidValue
from tray_valet.core.import_engine import (
    Wanted,
    engine_for,
    engine_path,
    joined,
    leave_own_flags,
    program_path,
    split_flags,
)
from tray_valet.core.import_report import Findings, Ground, Part
from tray_valet.core.models import ProviderKind, check_model_name

_IDLE: SettingsPath = ("models", "idle_timeout_seconds")
_SYSTEM: dict[str, SettingsPath] = {
    "max_concurrent_models": ("models", "max_concurrent"),
    "idle_timeout_sec": _IDLE,
    "request_timeout_sec": ("router", "request_timeout_seconds"),
    "max_queue_size_per_model": ("router", "max_queue_size_per_model"),
    "vram_multiplier": ("models", "vram_multiplier"),
}
_ENGINE = {
    "llama_server_path": "llama_server_path",
    "base_models_path": "base_models_path",
    "gpu_devices": "gpu_devices",
    "parallel_requests": "default_parallel",
    "default_parallel": "default_parallel",
}
_AS_FLAGS = {"cpu_threads": "--threads", "flash_attention": "--flash-attn"}
_OTHER = ("preload_models", "enable_idle_timeout")
_API: dict[str, SettingsPath] = {
    "host": ("router", "host"),
    "port": ("router", "port"),
    "cors_origins": ("router", "cors_origins"),
}
_API_KEYS = ("api_key", "API_KEY")
_SECRET_NAME = "router-model-custom"
KEYS = frozenset({"api", "system", "models", *_API_KEYS})


def read_router_model_custom(document: Node, ground: Ground) -> Findings:
    """Find what a RouterModelCustom file says; `document` is the file as it was parsed."""
    return _Reading(document, ground).read()


class _Reading:
    def __init__(self, document: Node, ground: Ground) -> None:
        self._document = document
        self._ground = ground
        self._found = Findings()
        self._engine = engine_for(ground, (), self._wanted())
        self._base = self._base_path()
        self._for_all: list[tuple[str, list[Node]]] = []

    def _wanted(self) -> Wanted:
        program = self._document.at(("system", "llama_server_path"))
        path = program.value if program is not None and isinstance(program.value, str) else None
        listed = self._document.at(("system", "gpu_devices"))
        devices = to_plain(listed) if listed is not None else None
        return Wanted(
            program_path(self._ground.folder, path) if path else None,
            tuple(devices) if isinstance(devices, list) else None,
            tuple(self._model_names()),
        )

    def read(self) -> Findings:
        """Everything, in the order of the file; keys first, since an open address needs one."""
        self._key()
        for section, node in self._document.entries.items():
            match section:
                case "api":
                    self._section(node, section, self._api)
                case "system":
                    self._section(node, section, self._system)
                case "models" | "api_key" | "API_KEY":
                    pass  # after the others, which have a say in it
                case _:
                    self._unknown(section, KEYS)
        models = self._document.at(("models",))
        if models is not None:
            self._section(models, "models", self._model)
        self._preload()
        return self._found

    def _section(self, node: Node, section: str, take: Any) -> None:
        if node.value is not None and not isinstance(node.value, dict):
            self._found.leave(section, f"{shown(to_plain(node))} stands where keys and values belong.")
        for key, item in node.entries.items():
            take(key, item)

    def _unknown(self, source: str, known: Any) -> None:
        close = nearest(source.rpartition(".")[2], sorted(known))
        remedy = f"Did you mean “{close}”?" if close else "Nothing here does the same; leave it out."
        self._found.leave(source, "There is no such setting.", remedy)

    # -- api and system --------------------------------------------------------------------------

    def _api(self, key: str, node: Node) -> None:
        if key in _API_KEYS:
            return
        if key not in _API:
            self._unknown(f"api.{key}", _API)
            return
        if node.value is not None:
            self._found.take(f"api.{key}", _API[key], to_plain(node))

    def _key(self) -> None:
        """The clients' key: from `.env` beside the file, where RouterModelCustom has it, or the file."""
        found: list[tuple[str, Any]] = [
            (dotted((*above, name)), node.value)
            for above in ((), ("api",), ("system",))
            for name in _API_KEYS
            if (node := self._document.at((*above, name))) is not None
        ]
        if self._ground.env_file.get("API_KEY"):
            found.append((".env API_KEY", self._ground.env_file["API_KEY"]))
        for source, value in found:
            if not isinstance(value, str) or not value:
                continue
            path = ("router", "api_keys", _SECRET_NAME)
            self._found.take_secret(source, path, _SECRET_NAME, value)

    def _system(self, key: str, node: Node) -> None:
        source, value = f"system.{key}", to_plain(node)
        if key in _API_KEYS or value is None or key == "preload_models":
            return
        if key in _AS_FLAGS:
            self._flag_for_all(source, key, value)
        elif key == "enable_idle_timeout":
            self._idle_switch(source, value)
        elif key == "idle_timeout_sec" and self._is_idle_off():
            self._found.leave(source, "The idle timeout is switched off by enable_idle_timeout.")
        elif key in _SYSTEM:
            self._found.take(source, _SYSTEM[key], value)
        elif key in _ENGINE:
            if key in ("llama_server_path", "base_models_path") and isinstance(value, str):
                place = program_path if key == "llama_server_path" else joined
                value = place(self._ground.folder, value) if value else value
            path = (*engine_path(self._engine), _ENGINE[key])
            self._found.take(source, path, value, kind=ProviderKind.LLAMA_SERVER)
        else:
            self._unknown(source, {*_SYSTEM, *_ENGINE, *_AS_FLAGS, *_OTHER})

    def _is_idle_off(self) -> bool:
        switch = self._document.at(("system", "enable_idle_timeout"))
        return switch is not None and switch.value is False

    def _idle_switch(self, source: str, value: Any) -> None:
        if value is False:
            self._found.take(source, _IDLE, 0)
        elif value is not True:
            self._found.leave(source, f"{shown(value)} is neither true nor false.", "Write true or false.")
        else:
            timeout = self._document.at(("system", "idle_timeout_sec"))
            self._found.take(source, _IDLE, 300 if timeout is None else timeout.value)  # 300: its default

    def _flag_for_all(self, source: str, key: str, value: Any) -> None:
        flag = _AS_FLAGS[key]
        is_right = (
            isinstance(value, int) and value > 0 if key == "cpu_threads" else value in ("on", "off", "auto")
        )
        if isinstance(value, bool) or not is_right:
            known = "a whole number such as 8" if key == "cpu_threads" else "on, off or auto"
            self._found.leave(source, f"{shown(value)} is no value for it.", f"Use {known}.")
            return
        node = self._document.at(("system", key))
        assert node is not None
        self._for_all.append((source, [Node(flag, node.place), Node(str(value), node.place)]))
        if not self._model_names():
            self._found.leave(source, "There is no model whose flags it could become.")

    def _base_path(self) -> str | None:
        """What relative model paths are joined to; None where our base_models_path says the same."""
        base = self._document.at(("system", "base_models_path"))
        value = base.value if base is not None and isinstance(base.value, str) else ""
        folder = joined(self._ground.folder, value) if value else self._ground.folder
        there = self._ground.current.at((*engine_path(self._engine), "base_models_path"))
        present = there.value if there is not None else None
        return None if value and present in (None, folder) else folder

    # -- models ----------------------------------------------------------------------------------

    def _model_names(self) -> list[str]:
        models = self._document.at(("models",))
        entries = models.entries if models is not None else {}
        return [name for name, node in entries.items() if "model_path" in node.entries and _is_name(name)]

    def _model(self, name: str, node: Node) -> None:
        source = f"models.{name}"
        file = node.entries.get("model_path")
        if not _is_name(name):
            why = f"{shown(name)} is not a name for a model here."
            self._found.leave(source, why, "Use letters, digits and . _ : / @ - and import again.")
        elif file is None or not isinstance(file.value, str) or not file.value.strip():
            self._found.leave(source, "It has no model_path.", "Name its GGUF file and import again.")
        else:
            self._take_model(name, source, node, file.value)

    def _take_model(self, name: str, source: str, node: Node, file: str) -> None:
        path: SettingsPath = (*engine_path(self._engine), "models", name)
        file = file if self._base is None else joined(self._base, file)
        fields: dict[str, Any] = {"model_path": file}
        parts = [Part(f"{source}.model_path", (*path, "model_path"), file)]
        flags = node.entries.get("flags")
        if flags is not None and not isinstance(flags.value, list):
            if flags.value is not None:
                why = f"{shown(to_plain(flags))} is not a list."
                self._found.leave(f"{source}.flags", why, "Write the words as [-ngl, 99].")
            flags = None
        if flags is not None:
            told = split_flags([str(word.value) for word in flags.value]).words
            parts.append(Part(f"{source}.flags", (*path, "flags"), list(told)))
        merged, is_cpu_only = self._with_params(flags, node, source, path, parts)
        if is_cpu_only:
            fields["cpu_only"] = True
        split = split_flags([str(item.value) for item in merged.value])
        leave_own_flags(self._found, f"{source}.flags", split)
        if split.words:
            fields["flags"] = list(split.words)
        self._found.take(source, path, fields, kind=ProviderKind.LLAMA_SERVER, parts=parts)
        for key in node.entries.keys() - {"model_path", "flags", "params"}:
            self._unknown(f"{source}.{key}", ("model_path", "flags", "params"))

    def _with_params(
        self, flags: Node | None, node: Node, source: str, path: SettingsPath, parts: list[Part]
    ) -> tuple[Node, bool]:
        """The model's flags with what `params` and the flags for all models add, and whether it is for
        the CPU alone. What the model says itself counts before what is said for all."""
        merged = flags if flags is not None else Node([], node.place)
        is_cpu_only = False
        params = node.entries.get("params")
        more: list[tuple[str, list[Node]]] = []
        if params is not None and params.value is not None and not isinstance(params.value, dict):
            self._from_params(params, f"{source}.params")
        for key, item in params.entries.items() if params is not None else ():
            words, is_for_cpu = self._from_params(Node({key: item}, item.place), f"{source}.params")
            is_cpu_only = is_cpu_only or is_for_cpu
            if words or item.value is False:  # embedding: false is no flag
                more.append((f"{source}.params.{key}", words))
        for said, words in (*more, *self._for_all):
            merged, contradicted = with_flags(merged, words, node.place)
            if contradicted:
                why = f"{source} sets {contradicted[0]} to something else, which counts."
                self._found.leave(said, why)
            else:
                told = [str(word.value) for word in words]
                parts.append(Part(said, (*path, "flags"), told))
        return merged, is_cpu_only

    def _from_params(self, params: Node, source: str) -> tuple[list[Node], bool]:
        words, is_cpu_only, problems = flags_from_params(params, (source,))
        for problem in problems:
            why, _, remedy = problem.message.partition(". ")
            self._found.leave(problem.path, f"{why.rstrip('.')}.", remedy)
        return words, is_cpu_only

    def _preload(self) -> None:
        node = self._document.at(("system", "preload_models"))
        if node is None or node.value is None:
            return
        names, known = to_plain(node), {"*", *self._model_names()}
        if isinstance(names, list):
            for name in names:
                if not isinstance(name, str) or name not in known:
                    why = f"No model {shown(name)} was taken."
                    self._found.leave("system.preload_models", why, "Name one of models, or *.")
            if names and not known.intersection(map(str, names)):
                return
            names = [name for name in names if isinstance(name, str) and name in known]
        self._found.take("system.preload_models", ("models", "preload"), names)


def _is_name(name: str) -> bool:
    try:
        check_model_name(name)
    except InvalidValue:
        return False
    return True
