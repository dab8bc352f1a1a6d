"""llama-swap's `config.yaml` in our settings.

Decides: where its keys go: models by their commands, aliases and filters as routes, groups, peers, keys.
Must not: judge values; our own rules do (`import_plan.py`).
Source: llama-swap, config.example.yaml and internal/config/{config,load,filters,peer}.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tray_valet.core.config import GroupMode, ModelsSettings
from tray_valet.core.config_tree import Node, shown, to_plain
from tray_valet.core.errors import InvalidValue
from tray_valet.core.import_engine import ENGINE_NAME
from tray_valet.core.import_llama_swap_macros import model_macros, resolved, without_comments
from tray_valet.core.import_llama_swap_models import SwapModels, read_model
from tray_valet.core.import_llama_swap_routes import mapping, peers, routes_of
from tray_valet.core.import_llama_swap_words import ABOUT_KEYS, IDLE_REMEDY, IDLE_WHY
from tray_valet.core.import_report import Findings, Ground
from tray_valet.core.models import ProviderKind

_LOG_LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "error": "error"}
_USED = frozenset({"models", "macros", "apiKeys", "peers", "groups", "hooks", "globalTTL"})
KEYS = frozenset({*_USED, *ABOUT_KEYS, "routing", "logLevel", "startPort"})


def read_llama_swap(document: Node, ground: Ground) -> Findings:
    """Find what a llama-swap file says; `document` is the file as it was parsed."""
    return _Reading(to_plain(document), ground).read()


class _Reading:
    def __init__(self, document: Mapping[str, Any], ground: Ground) -> None:
        self._document = document
        self._ground = ground
        self._found = Findings()
        self._shared = mapping(document.get("macros"))
        self._models = SwapModels(self._found, ground)
        self._aliases: dict[str, str] = {}
        self._fields: dict[str, Mapping[str, Any]] = {}

    def read(self) -> Findings:
        """Everything: models first, since most of the rest refers to them."""
        self._section("apiKeys", self._api_keys)
        self._section("models", self._all_models, is_resolved=False)
        self._section("peers", lambda value: peers(self._found, value, self._shared_resolved))
        self._idle_time()
        self._section("hooks", self._preload)
        for source, groups in self._group_places():
            self._groups(source, groups)
        self._section("startPort", self._start_port)
        self._section("logLevel", self._log_level)
        self._rest()
        self._tell_other_habits()
        return self._found

    def _section(self, key: str, take: Any, *, is_resolved: bool = True) -> None:
        """One top-level key, its macros replaced; each entry of `peers` and `apiKeys` has its own try."""
        value = self._document.get(key)
        if value is None:
            return
        if is_resolved and key not in ("peers", "apiKeys"):
            try:
                value = self._shared_resolved(value)
            except InvalidValue as error:
                self._found.leave(key, error.message, error.remedy)
                return
        take(value)

    def _shared_resolved(self, value: Any) -> Any:
        return resolved(value, tuple(self._shared.items()), self._ground.environ)

    # -- models ----------------------------------------------------------------------------------

    def _all_models(self, models: Any) -> None:
        for name, fields in mapping(models).items():
            source = f"models.{name}"
            if not isinstance(fields, Mapping):
                self._found.leave(source, "It is not a group of keys.", "Give it a cmd and import again.")
                continue
            try:
                whole = self._resolved_model(str(name), fields)
                model = read_model(str(name), whole)
            except InvalidValue as error:
                self._found.leave(source, error.message, error.remedy)
                continue
            self._fields[model.name] = whole
            self._models.place(model)
        self._models.finish()
        for name, whole in self._fields.items():
            if name in self._models.placed:
                names = frozenset(map(str, mapping(models)))
                taken = routes_of(self._found, name, whole, self._models.placed[name], names, self._aliases)
                self._aliases |= dict.fromkeys(taken, name)

    def _resolved_model(self, name: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        prepared = {key: value for key, value in fields.items() if key != "macros"}
        for key in ("cmd", "cmdStop"):
            if isinstance(prepared.get(key), str):
                prepared[key] = without_comments(prepared[key])
        macros = model_macros(name, self._shared, mapping(fields.get("macros")))
        # What only describes the model is not taken, so a mistake in it must not cost the model.
        described = {key: prepared.pop(key) for key in ("metadata", "name", "description") if key in prepared}
        whole = resolved(prepared, macros, self._ground.environ)
        return {**whole, **described}

    def _idle_time(self) -> None:
        """llama-swap's `ttl` is for each model, ours for all: taken if all say the same."""
        try:
            shared = self._shared_resolved(self._document.get("globalTTL"))
        except InvalidValue as error:
            self._found.leave("globalTTL", error.message, error.remedy)
            shared = None
        own = {name: fields.get("ttl") for name, fields in self._fields.items()}
        own = {name: None if ttl == -1 else ttl for name, ttl in own.items()}
        effective = [shared if ttl is None else ttl for ttl in own.values()]
        path = ("models", "idle_timeout_seconds")
        is_one = bool(effective) and None not in effective and all(ttl == effective[0] for ttl in effective)
        if shared is not None and (
            is_one or not effective or not all(ttl is not None for ttl in own.values())
        ):
            self._found.take("globalTTL", path, effective[0] if is_one else shared)
        elif shared is not None:
            self._found.leave("globalTTL", "Every model has a ttl of its own.")
        for name, ttl in own.items():
            if ttl is None:
                continue
            if is_one:
                self._found.take(f"models.{name}.ttl", path, ttl)
            elif ttl != shared:
                self._found.leave(f"models.{name}.ttl", IDLE_WHY, IDLE_REMEDY)

    # -- groups and preload ----------------------------------------------------------------------

    def _group_places(self) -> Iterator[tuple[str, Any]]:
        yield "groups", self._document.get("groups")
        router = mapping(mapping(self._document.get("routing")).get("router"))
        settings = mapping(router.get("settings"))
        if router.get("use") != "matrix":
            yield "routing.router.settings.groups", settings.get("groups")

    def _groups(self, source: str, groups: Any) -> None:
        for name, group in mapping(groups).items():
            fields = mapping(group)
            listed = fields.get("members")
            members = [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
            known = [member for member in members if member in self._models.placed]
            for member in members:
                if member not in known:
                    why = f"No model {shown(member)} was taken."
                    self._found.leave(f"{source}.{name}.members", why, "Correct its name and import again.")
            if known:
                mode = self._mode(f"{source}.{name}", fields)
                value = {"mode": mode.value, "models": known}
                self._found.take(f"{source}.{name}", ("models", "groups", str(name)), value)

    def _mode(self, source: str, fields: Mapping[str, Any]) -> GroupMode:
        """One word for three switches: what the one word does not say is told."""
        is_swap, is_exclusive = fields.get("swap", True), fields.get("exclusive", True)
        is_pinned = fields.get("persistent", False)
        why = "A group has one mode here."
        if is_pinned and is_swap:
            remedy = "Without persistent it would become swap."
            self._found.leave(f"{source}.swap", f"{why[:-1]}: persistent became pinned.", remedy)
        if is_exclusive and (is_swap or is_pinned):
            kept = "persistent became pinned" if is_pinned else "swap counts"
            remedy = "With models.max_concurrent: 1 no other model stays beside it."
            self._found.leave(f"{source}.exclusive", f"{why[:-1]}: {kept}.", remedy)
        if is_pinned:
            return GroupMode.PINNED
        if is_swap:
            return GroupMode.SWAP
        return GroupMode.EXCLUSIVE if is_exclusive else GroupMode.TOGETHER

    def _preload(self, hooks: Any) -> None:
        source = "hooks.on_startup.preload"
        names = mapping(mapping(hooks).get("on_startup")).get("preload")
        taken: list[str] = []
        for name in names if isinstance(names, list) else []:
            word = str(name).strip()
            model = self._aliases.get(word, word)
            if model in self._models.placed:
                taken.append(model)
            elif word:
                why = f"No model {shown(word)} was taken."
                self._found.leave(source, why, "Correct its name and import again.")
        if taken:
            self._found.take(source, ("models", "preload"), list(dict.fromkeys(taken)))

    # -- the rest --------------------------------------------------------------------------------

    def _api_keys(self, keys: Any) -> None:
        for number, key in enumerate(keys if isinstance(keys, list) else [], start=1):
            source, name = f"apiKeys[{number - 1}]", f"llama-swap-{number}"
            try:
                secret = self._shared_resolved(key)
            except InvalidValue as error:
                self._found.leave(source, error.message, error.remedy)
                continue
            if not isinstance(secret, str) or not secret or " " in secret:
                self._found.leave(
                    source, "The key is empty or holds a space.", "Correct it and import again."
                )
                continue
            self._found.take_secret(source, ("router", "api_keys", name), name, secret)

    def _start_port(self, value: Any) -> None:
        # The first provider alone: each looks for free ports from its first one on.
        engine = (*self._models.engine_names, ENGINE_NAME)[0]
        path = ("providers", engine, "first_port")
        self._found.take("startPort", path, value, kind=ProviderKind.LLAMA_SERVER)

    def _log_level(self, value: Any) -> None:
        self._found.take("logLevel", ("log", "level"), _LOG_LEVELS.get(str(value), value))

    def _tell_other_habits(self) -> None:
        """Where llama-swap does otherwise although nothing is written."""
        if not self._models.placed:
            return
        taken = {item.path for item in self._found.items}
        defaults, current = ModelsSettings(), self._ground.current
        idle, most = ("models", "idle_timeout_seconds"), ("models", "max_concurrent")
        if idle not in taken and current.at(idle) is None:
            self._found.notes.append(
                "llama-swap keeps a model until another one is wanted. Here it goes after "
                f"{defaults.idle_timeout_seconds} s without use (models.idle_timeout_seconds; 0 = never)."
            )
        has_groups = any(path[:2] == ("models", "groups") for path in taken)
        if not has_groups and len(self._models.placed) > 1 and current.at(most) is None:
            self._found.notes.append(
                "llama-swap keeps one model in memory at a time. Here there are "
                f"{defaults.max_concurrent} where they fit (models.max_concurrent)."
            )

    def _rest(self) -> None:
        routing = mapping(self._document.get("routing"))
        if routing.get("scheduler"):
            self._found.leave("routing.scheduler", *ABOUT_KEYS["routing.scheduler"])
        if mapping(mapping(routing.get("router")).get("settings")).get("matrix"):
            self._found.leave("routing.router.settings.matrix", *ABOUT_KEYS["matrix"])
        for key, value in self._document.items():
            if key in ABOUT_KEYS:
                self._found.leave(key, *ABOUT_KEYS[key])
            elif key not in KEYS and value is not None:
                self._found.leave(key, "llama-swap has no such setting.", "Leave it out.")
