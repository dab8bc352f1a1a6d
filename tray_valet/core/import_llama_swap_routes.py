"""llama-swap's aliases, filters and peers in our settings: routes and providers.

Decides: which routes an imported model gets, and what its requests are changed by.
Must not: judge values; our own rules do (`import_plan.py`).
Source: llama-swap, internal/config/{filters,peer}.go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from tray_valet.core.config_tree import SettingsPath
from tray_valet.core.errors import InvalidValue
from tray_valet.core.import_llama_swap_models import api_url, provider_name
from tray_valet.core.import_llama_swap_words import ABOUT_MODEL_KEYS
from tray_valet.core.import_report import Findings, Item, Part, reference_to
from tray_valet.core.models import ProviderKind, check_model_name

_PROTECTED = "model"  # llama-swap never changes it


def routes_of(
    found: Findings,
    name: str,
    fields: Mapping[str, Any],
    place: tuple[str, str],
    models: Collection[str],
    aliases: Mapping[str, str],
) -> list[str]:
    """Take the routes of one model, which is served at `place`: under its own name where requests are
    changed or the provider calls it otherwise, and under each alias. Returns the aliases taken."""
    source = f"models.{name}"
    filters = fields.get("filters")
    candidate, told = _candidate(found, f"{source}.filters", filters, place)
    if told or place[1] != name:
        told = told or [f"{source}.useModelName"]
        _take_route(found, source, name, candidate, told)
    taken: list[str] = []
    wished = fields.get("aliases")
    if wished and not isinstance(wished, list):
        found.leave(f"{source}.aliases", "It is not a list.", "Write [a, b] and import again.")
    for written in wished if isinstance(wished, list) else []:
        alias = str(written) if isinstance(written, str | int) else ""
        if _is_free(found, f"{source}.aliases", alias, models, aliases):
            _take_route(found, f"{source}.aliases", alias, candidate, [f"{source}.aliases"])
            taken.append(alias)
    by_id = mapping(mapping(filters).get("setParamsByID"))
    for alias, params in by_id.items():
        own = {**candidate, "set": {**candidate.get("set", {}), **_without_model(mapping(params))}}
        said = f"{source}.filters.setParamsByID.{alias}"
        if alias == name or alias in taken:
            found.items = [item for item in found.items if item.path != ("routes", alias)]
        elif not _is_free(found, said, alias, models, aliases):
            continue
        _take_route(found, said, alias, own, [*([] if alias != name else told), said])
        taken += [] if alias == name else [alias]
    return taken


def _is_free(
    found: Findings, source: str, alias: str, models: Collection[str], aliases: Mapping[str, str]
) -> bool:
    try:
        check_model_name(alias)
    except InvalidValue as error:
        found.leave(f"{source} {alias}", error.message, error.remedy)
        return False
    if alias in models or alias in aliases:
        owner = "a model" if alias in models else f"an alias of {aliases[alias]}"
        found.leave(f"{source} {alias}", f"It is {owner} already.", "Use another name.")
        return False
    return True


def _take_route(found: Findings, source: str, alias: str, candidate: Any, told: list[str]) -> None:
    path: SettingsPath = ("routes", alias)
    value = {"candidates": [candidate]}
    found.take(source, path, value, parts=[Part(said, path, value) for said in told])


def _candidate(
    found: Findings, source: str, filters: Any, place: tuple[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The candidate, and the filters that it has."""
    candidate: dict[str, Any] = {"provider": place[0], "model": place[1]}
    told: list[str] = []
    for key, value in mapping(filters).items():
        if key in ("stripParams", "strip_params") and isinstance(value, str):
            names = [name.strip() for name in value.split(",")]
            candidate["strip"] = sorted({name for name in names if name and name != _PROTECTED})
            told += [f"{source}.{key}"] if candidate["strip"] else []
        elif key == "setParams" and isinstance(value, Mapping):
            candidate["set"] = _without_model(value)
            told += [f"{source}.{key}"] if candidate["set"] else []
        elif key != "setParamsByID":
            found.leave(f"{source}.{key}", "There is no such filter.", "Use set and strip of a route.")
    return {key: value for key, value in candidate.items() if value}, told


def peers(found: Findings, value: Any, resolve: Callable[[Any], Any]) -> None:
    """Take each peer as a provider that speaks the OpenAI API. `resolve` replaces macros."""
    for name, fields in mapping(value).items():
        source = f"peers.{name}"
        try:
            peer = resolve(fields)
        except InvalidValue as error:
            found.leave(source, error.message, error.remedy)
            continue
        if not isinstance(peer, Mapping) or not isinstance(peer.get("proxy"), str):
            found.leave(source, "It has no proxy.", "Give it an address and import again.")
            continue
        _peer(found, source, str(name), peer)


def _peer(found: Findings, source: str, name: str, peer: Mapping[str, Any]) -> None:
    provider = provider_name(name)
    path: SettingsPath = ("providers", provider)
    listed = peer.get("models")
    models = [model for model in listed if isinstance(model, str)] if isinstance(listed, list) else []
    value: dict[str, Any] = {"kind": ProviderKind.OPENAI.value, "url": api_url(peer["proxy"])}
    parts = [Part(f"{source}.proxy", (*path, "url"), value["url"])]
    if models:
        value["models"] = models
        parts.append(Part(f"{source}.models", (*path, "models"), models))
    key = peer.get("apiKey")
    secret = key if isinstance(key, str) and key else None
    if secret is not None:
        # With the address in one item: where that is refused, the key must not go anywhere else.
        value["api_key"] = reference_to(provider)
        parts.append(Part(f"{source}.apiKey", (*path, "api_key"), value["api_key"]))
    item = Item(
        source=source,
        path=path,
        value=value,
        parts=tuple(parts),
        secret=secret,
        secret_name=provider if secret is not None else "",
    )
    found.items.append(item)
    for model in models:
        candidate, told = _candidate(found, f"{source}.filters", peer.get("filters"), (provider, model))
        if told:
            _take_route(found, f"{source}.filters", model, candidate, told)
    if peer.get("timeouts"):
        found.leave(f"{source}.timeouts", *ABOUT_MODEL_KEYS["timeouts"])
    for key in peer.keys() - {"proxy", "models", "apiKey", "filters", "timeouts"}:
        found.leave(f"{source}.{key}", "There is no such setting.", "Leave it out.")


def _without_model(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != _PROTECTED}


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a group of keys, else an empty one."""
    return value if isinstance(value, Mapping) else {}
