"""llama-swap's models in our settings: runners, programs, and addresses elsewhere.

Decides: what each model's command becomes: a model of a llama-server provider, a program of a command
provider, or a model at an address. Must not: judge values; our own rules do (`import_plan.py`).
Source: llama-swap, config.example.yaml and internal/config/model_config.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from tray_valet.core.addresses import is_loopback_host, split_url
from tray_valet.core.config_tree import SettingsPath, shown
from tray_valet.core.errors import InvalidValue
from tray_valet.core.import_engine import (
    Flags,
    Wanted,
    engine_for,
    is_key_name,
    joined,
    leave_own_flags,
    program_path,
    split_flags,
    without_keys,
)
from tray_valet.core.import_llama_swap_macros import PID, PORT, split_command
from tray_valet.core.import_llama_swap_words import ABOUT_MODEL_KEYS
from tray_valet.core.import_report import Findings, Ground, Part
from tray_valet.core.models import ProviderKind, check_model_name

COMMANDS = "commands"
_DEVICES = "CUDA_VISIBLE_DEVICES"
_ABOUT_COMMANDS = (
    "Programs that are not llama-server (kind: command) are kept in the settings; this version does not "
    "start them."
)
_READ = frozenset({"cmd", "env", "aliases", "filters", "ttl", "macros"})


class SwapModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of llama-swap with its macros replaced; `fields` are its keys."""

    name: str
    fields: Mapping[str, Any]
    words: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    url: str = ""  # of a server on another machine; "" where the command's own is meant
    port: str = ""  # the fixed port of `proxy`, "" without one

    @property
    def source(self) -> str:
        return f"models.{self.name}"

    @property
    def is_llama_server(self) -> bool:
        program = self.words[0].replace("\\", "/").rpartition("/")[2].lower() if self.words else ""
        return program.startswith("llama-server")

    @property
    def is_without_gpu(self) -> bool:
        """Whether it may see no GPU at all: CUDA_VISIBLE_DEVICES is empty or -1."""
        return self.env.get(_DEVICES, "0").strip() in ("", "-1")

    @property
    def devices(self) -> tuple[int, ...] | None:
        """The GPUs that the model may see by their numbers; None = nothing is said in numbers."""
        numbers = [word.strip() for word in self.env.get(_DEVICES, "").split(",")]
        return tuple(map(int, numbers)) if all(map(str.isdecimal, numbers)) else None


def read_model(name: str, fields: Mapping[str, Any]) -> SwapModel:
    """Look at one model. Raises InvalidValue for a name or a command that cannot be used."""
    check_model_name(name)
    cmd = fields.get("cmd") or ""
    words = split_command(cmd) if isinstance(cmd, str) else []
    proxy = fields.get("proxy")
    parts = split_url(proxy) if isinstance(proxy, str) and PORT not in proxy else None
    is_elsewhere = parts is not None and not is_loopback_host(parts.host)
    if not words and not is_elsewhere and parts is None:
        raise InvalidValue("It has no command.", remedy="Give it a cmd and import again.")
    lines = fields.get("env")
    pairs = (
        [line.partition("=") for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    )
    return SwapModel(
        name=name,
        fields=fields,
        words=tuple(words),
        env={key: value for key, is_set, value in pairs if is_set},
        url=str(proxy) if is_elsewhere or (parts is not None and not words) else "",
        port=str(parts.port) if parts is not None and parts.port is not None else "",
    )


class SwapModels:
    """Places the models; `placed` says at which provider, and under which name, each is served."""

    def __init__(self, found: Findings, ground: Ground) -> None:
        self.placed: dict[str, tuple[str, str]] = {}
        self._found = found
        self._ground = ground
        self._engines: dict[tuple[str | None, tuple[int, ...] | None], str] = {}
        self._servers: dict[tuple[str, str], list[tuple[SwapModel, str]]] = {}

    def place(self, model: SwapModel) -> None:
        """Take one model, or say why not."""
        taken = set(_READ)
        if not isinstance(model.fields.get("env") or [], list):
            remedy = "Write [NAME=value] and import again."
            self._found.leave(f"{model.source}.env", "It is not a list.", remedy)
        flags = split_flags(model.words[1:])
        if model.url:
            self._elsewhere(model)
            taken |= {"proxy", "useModelName"}
        elif model.is_llama_server and flags.model:
            self._engine_model(model, flags)
        elif self._program(model):
            taken |= {"proxy", "checkEndpoint", "cmdStop"}
        for key, value in model.fields.items():
            if key in taken or value in (None, "", 0, False) or value == [] or value == {}:
                continue
            why, remedy = ABOUT_MODEL_KEYS.get(key, ("There is no such setting.", "Leave it out."))
            self._found.leave(f"{model.source}.{key}", why, remedy)

    @property
    def engine_names(self) -> tuple[str, ...]:
        """The llama-server providers that models were placed at."""
        return tuple(dict.fromkeys(self._engines.values()))

    # -- llama-server ----------------------------------------------------------------------------

    def _engine_model(self, model: SwapModel, flags: Flags) -> None:
        engine = self._engine(model)
        path: SettingsPath = ("providers", engine, "models", model.name)
        file = joined(self._ground.folder, flags.model or "")
        fields: dict[str, Any] = {"model_path": file}
        parts = [Part(f"{model.source}.cmd", (*path, "model_path"), file)]
        if flags.words:
            fields["flags"] = list(flags.words)
            parts.append(Part(f"{model.source}.cmd", (*path, "flags"), list(flags.words)))
        if model.is_without_gpu:
            fields["cpu_only"] = True
            parts.append(Part(f"{model.source}.env {_DEVICES}", (*path, "cpu_only"), True))
        leave_own_flags(self._found, f"{model.source}.cmd", flags)
        self._found.take(f"{model.source}.cmd", path, fields, kind=ProviderKind.LLAMA_SERVER, parts=parts)
        self.placed[model.name] = (engine, model.name)
        for variable in model.env:
            if variable != _DEVICES or (model.devices is None and not model.is_without_gpu):
                self._found.leave(
                    f"{model.source}.env {variable}",
                    "A llama-server model has no variables of its own here.",
                    "Set it in the valet's environment, or use the flag that does the same.",
                )

    def _engine(self, model: SwapModel) -> str:
        """The provider for this program and these GPUs."""
        program: str | None = program_path(self._ground.folder, model.words[0])
        if program in ("llama-server", "llama-server.exe"):
            program = None  # the one on PATH, which is ours too
        key = (program, model.devices)
        if key not in self._engines:
            name = engine_for(
                self._ground, self._engines.values(), Wanted(program, model.devices, (model.name,))
            )
            self._engines[key] = name
            path: SettingsPath = ("providers", name)
            if program is not None:
                source = f"{model.source}.cmd"
                kind = ProviderKind.LLAMA_SERVER
                self._found.take(source, (*path, "llama_server_path"), program, kind=kind)
        name = self._engines[key]
        if model.devices is not None:
            source, path = f"{model.source}.env {_DEVICES}", ("providers", name, "gpu_devices")
            self._found.take(source, path, list(model.devices), kind=ProviderKind.LLAMA_SERVER)
        return name

    # -- programs --------------------------------------------------------------------------------

    def _program(self, model: SwapModel) -> bool:
        safe, dropped = without_keys(model.words)
        words = [_with_port(word, model.port) for word in safe]
        if not any("{port}" in word for word in words):
            self._found.leave(
                f"{model.source}.cmd",
                "The command names no port, and the valet gives each program its own.",
                "Write ${PORT} where the command takes its port, and import again.",
            )
            return False
        fields: dict[str, Any] = {"command": words}
        path: SettingsPath = ("providers", COMMANDS, "models", model.name)
        parts = [Part(f"{model.source}.cmd", (*path, "command"), words)]
        dropped += [f"env {name}" for name in model.env if is_key_name(name)]
        env = {name: value for name, value in model.env.items() if not is_key_name(name)}
        if env:
            fields["env"] = env
            parts.append(Part(f"{model.source}.env", (*path, "env"), env))
        for name in dropped:
            remedy = "Set it in the valet's environment."
            self._found.leave(f"{model.source} {name}", "A key is not kept in the settings.", remedy)
        check = model.fields.get("checkEndpoint", "/health")
        if isinstance(check, str) and check != "none":
            fields["health"] = check if check.startswith("/") else f"/{check}"
            if "checkEndpoint" in model.fields:
                parts.append(Part(f"{model.source}.checkEndpoint", (*path, "health"), fields["health"]))
        stop = self._stop(model)
        if stop:
            fields["stop"] = stop
            parts.append(Part(f"{model.source}.cmdStop", (*path, "stop"), stop))
        self._found.take(f"{model.source}.cmd", path, fields, kind=ProviderKind.COMMAND, parts=parts)
        if _ABOUT_COMMANDS not in self._found.notes:
            self._found.notes.append(_ABOUT_COMMANDS)
        self.placed[model.name] = (COMMANDS, model.name)
        return True

    def _stop(self, model: SwapModel) -> list[str]:
        text = model.fields.get("cmdStop")
        if not isinstance(text, str) or not text.strip():
            return []
        source = f"{model.source}.cmdStop"
        if PID in text:
            self._found.leave(
                source,
                "A program's process number is not given to its stop command.",
                "Nothing is needed: without one, the program is ended by the valet.",
            )
            return []
        try:
            return [_with_port(word, model.port) for word in split_command(text)]
        except InvalidValue as error:
            self._found.leave(source, error.message, error.remedy)
            return []

    # -- elsewhere -------------------------------------------------------------------------------

    def _elsewhere(self, model: SwapModel) -> None:
        parts = split_url(model.url)
        host = parts.host if parts is not None else ""
        name = provider_name(host if parts is None or parts.port is None else f"{host}-{parts.port}")
        upstream = str(model.fields.get("useModelName") or model.name)
        self._servers.setdefault((name, model.url), []).append((model, upstream))
        self.placed[model.name] = (name, upstream)
        if model.words:
            self._found.leave(
                f"{model.source}.cmd",
                f"The model is served from {shown(host)}; nothing is started here.",
                "See to it that it runs there.",
            )

    def finish(self) -> None:
        """Take the servers elsewhere, each with its models."""
        for (name, proxy), served in self._servers.items():
            path: SettingsPath = ("providers", name)
            url, models = api_url(proxy), list(dict.fromkeys(upstream for _, upstream in served))
            value = {"kind": ProviderKind.OPENAI.value, "url": url, "models": models}
            parts = [Part(f"{model.source}.proxy", (*path, "url"), url) for model, _ in served]
            parts += [Part(model.source, (*path, "models"), upstream) for model, upstream in served]
            self._found.take(f"{served[0][0].source}.proxy", path, value, parts=parts)


def api_url(proxy: str) -> str:
    """llama-swap adds the request's path, `/v1/…`, to the address; ours ends with `/v1`."""
    base = proxy.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def provider_name(text: str) -> str:
    """The text as the name of a provider."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:64] or "imported"


def _with_port(word: str, fixed: str) -> str:
    if PORT in word:
        return word.replace(PORT, "{port}")
    return "{port}" if fixed and word == fixed else word
