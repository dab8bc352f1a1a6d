"""The doctor's looks at what runs models: servers, engines, model files, and the room for them.

Decides: how each is looked at. Must not: judge (`core/checkup_providers.py` does), load a model, or wake a
GPU. Servers of this machine and its network are asked what they are; clouds are not.
"""

from __future__ import annotations

import http.client
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from tray_valet.commands.doctor_ground import FOUND_OLLAMA, Ground
from tray_valet.core import checkup_providers as rules
from tray_valet.core.addresses import is_loopback_host, is_private_host, split_url
from tray_valet.core.checkup import Finding
from tray_valet.core.checkup_providers import FileSeen, RoomSeen, ServerSeen, SizeSeen
from tray_valet.core.config_providers import CommandSettings, LlamaServerSettings, OllamaSettings
from tray_valet.core.errors import EngineMissing
from tray_valet.core.processes import System

_ANSWER_S = 1.5
_ANSWER_BYTES = 8 * 2**20
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OLLAMA_PORT = 11434
Models = dict[str, dict[str, int | None] | None]  # provider → its models and their contexts; None = silent


def ollama(ground: Ground) -> Finding:
    """Every Ollama that the settings mean, and its version."""
    is_installed = shutil.which("ollama", path=ground.environ.get("PATH")) is not None
    servers = []
    for name, wish in ground.of_kind(OllamaSettings).items():
        answer = _ask(wish.url, "/api/version")
        version = answer.get("version") if isinstance(answer, dict) else None
        parts = split_url(wish.url)
        servers.append(
            ServerSeen(
                provider=name,
                url=wish.url,
                is_answering=answer is not None,
                version=str(version or ""),
                is_installed=is_installed or parts is None or not is_loopback_host(parts.host),
                is_configured=ground.settings.providers is not None,
            )
        )
    return rules.of_ollama(tuple(servers))


def other_servers(ground: Ground) -> Finding:
    """The other servers with an address on this machine or its network."""
    servers = []
    for name, wish in ground.providers.items():
        url = getattr(wish, "url", None)
        parts = split_url(url) if url else None
        if isinstance(wish, OllamaSettings) or parts is None or not is_private_host(parts.host):
            continue
        is_there = _ask(str(url), "/models") is not None
        servers.append(ServerSeen(provider=name, url=str(url), is_answering=is_there))
    return rules.of_other_servers(tuple(servers))


def _ask(url: str, path: str) -> Any:
    """The JSON at an address; {} where something answers that is not JSON, None where nothing does."""
    parts = split_url(url)
    if parts is None:
        return None
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.host, parts.port or _DEFAULT_PORTS[parts.scheme], timeout=_ANSWER_S)
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Accept": "application/json"})
        raw = connection.getresponse().read(_ANSWER_BYTES)
    except http.client.HTTPException:
        return {}
    except OSError:
        return None
    finally:
        connection.close()
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


# -- engines and files -------------------------------------------------------------------------------


def engine(ground: Ground) -> Finding:
    """The llama.cpp that each llama-server provider would start."""
    from tray_valet.engine.locate import locate_engine

    engines: dict[str, str] = {}
    problems: dict[str, tuple[str, str]] = {}
    for name, wish in ground.of_kind(LlamaServerSettings).items():
        try:
            engines[name] = locate_engine(wish.llama_server_path, ground.environ).path
        except EngineMissing as error:
            problems[name] = (error.message, error.remedy)
    if ground.settings.providers is None and _ask(OllamaSettings().url, "/api/version") is None:
        try:  # the built-in demo model is all there is
            engines["the demo model"] = locate_engine(None, ground.environ).path
        except EngineMissing as error:
            problems["the demo model"] = (error.message, error.remedy)
    for name, command in ground.of_kind(CommandSettings).items():
        for model, wish in command.models.items():
            if wish.command and shutil.which(wish.command[0], path=ground.environ.get("PATH")) is None:
                problems[name] = (
                    f"There is no program {wish.command[0]} (model {model}).",
                    f"Install it, or correct providers.{name}.models.{model}.command.",
                )
    return rules.of_engine(engines, problems)


def cpu(ground: Ground) -> Finding:
    """Whether the processor has what the built-in engine needs."""
    from tray_valet.core.engines import EngineKind
    from tray_valet.engine.locate import locate_engine

    is_needed = ground.settings.providers is None
    for wish in ground.of_kind(LlamaServerSettings).values():
        try:
            kind = locate_engine(wish.llama_server_path, ground.environ).kind
        except EngineMissing:
            continue
        is_needed = is_needed or kind is EngineKind.EMBEDDED
    return rules.of_cpu(has_avx2=_has_avx2(ground), is_needed=is_needed)


def _has_avx2(ground: Ground) -> bool | None:
    """None where this is no x86, or nobody tells.

    Sources: proc_cpuinfo(5), the line `flags`; IsProcessorFeaturePresent, PF_AVX2_INSTRUCTIONS_AVAILABLE
    (40) in winnt.h.
    """
    if ground.system is System.LINUX:
        try:
            lines = (ground.proc / "cpuinfo").read_text(errors="replace").splitlines()
        except OSError:
            return None
        flags = next((line for line in lines if line.startswith("flags")), None)
        return None if flags is None else "avx2" in flags.split()
    if ground.system is System.WINDOWS:
        import ctypes
        import platform

        windll = getattr(ctypes, "windll", None)
        if windll is None or platform.machine().upper() not in ("AMD64", "X86"):
            return None
        return bool(windll.kernel32.IsProcessorFeaturePresent(40))
    return None


def model_files(ground: Ground) -> Finding:
    """Every model file that the settings name."""
    return rules.of_model_files(seen_files(ground))


def seen_files(ground: Ground) -> tuple[FileSeen, ...]:
    """The model files as they lie there; only headers are read."""
    from tray_valet.providers.llama_server_files import ModelFiles

    places = ModelFiles(ground.settings_file.parent)
    found = []
    for name, wish in ground.of_kind(LlamaServerSettings).items():
        for alias, model in wish.models.items():
            path = places.path_of(wish, alias)
            problem, size_bytes = _look_at_file(path)
            is_relative = wish.base_models_path is None and not os.path.isabs(
                os.path.expanduser(os.path.expandvars(model.model_path))
            )
            found.append(
                FileSeen(
                    place=f"providers.{name}.models.{alias}",
                    path=str(path),
                    problem=problem,
                    is_relative_to_settings=is_relative,
                    size_bytes=size_bytes,
                    is_cpu_only=model.cpu_only,
                )
            )
    return tuple(found)


def _look_at_file(path: Path) -> tuple[str, int]:
    """What is the matter with it ("" = nothing), and its size with all its parts."""
    from tray_valet.providers.gguf_header import NotGgufError, parts_of, read_header, size_on_disk

    try:
        if path.is_dir():
            return "is a folder", 0
        missing = [part for part in parts_of(path) if not part.exists()]
        if missing == [path] or not path.exists():
            return "does not exist", 0
        if missing:
            return f"is not whole: {missing[0].name} is missing", 0
        if not path.is_file():
            return "is not a file", 0
        read_header(path)
        return "", size_on_disk(path)
    except NotGgufError:
        return "is not a GGUF file, or not a whole one", 0
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})", 0


def sizes(ground: Ground) -> Finding:
    """Whether each model could be in memory at all."""
    import psutil

    models = [
        SizeSeen(seen.place.rpartition(".models.")[2], seen.size_bytes, seen.is_cpu_only)
        for seen in seen_files(ground)
        if not seen.problem
    ]
    for wish in ground.of_kind(OllamaSettings).values():
        parts = split_url(wish.url)
        if parts is None or not is_loopback_host(parts.host):
            continue
        models += [SizeSeen(name, size_bytes) for name, size_bytes in _ollama_models(wish.url).items()]
    gpus, missing = gpu_figures(ground)
    is_unmeasured = bool(missing) and "no NVIDIA" not in (missing or "")
    return rules.of_sizes(
        tuple(models),
        RoomSeen(
            ram_bytes=psutil.virtual_memory().total,
            vram_bytes=None if is_unmeasured else sum(vram for _, vram in gpus),
            multiplier=float(ground.settings.models.vram_multiplier),
            pause_pct=float(ground.settings.thresholds.ram_pause_pct),
        ),
    )


def gpu_figures(ground: Ground) -> tuple[list[tuple[str, int]], str | None]:
    """Name and VRAM (bytes) of each GPU, and why there is none: the valet's word, else our own look.

    One that sleeps is left asleep.
    """
    if ground.valet is not None and (metrics := ground.valet.of("/status").get("metrics")):
        gpu = metrics.get("gpu") or {}
        cards = [(str(each["name"]), int(each["vram_total_mb"]) * 2**20) for each in gpu.get("gpus") or []]
        return cards, gpu.get("missing_because")
    import time

    from tray_valet.sensing.nvidia import NvidiaGpus

    sensor = NvidiaGpus(time.monotonic, pci_devices=ground.sys / "bus" / "pci" / "devices")
    try:
        samples = sensor.sample()
        return [(gpu.name, gpu.vram_total_bytes) for gpu in samples], sensor.missing_because
    finally:
        sensor.close()


def known_models(ground: Ground) -> Models:
    """What each provider has: as the valet tells, else as the settings and its own server say."""
    from tray_valet.providers.llama_server_files import ModelFiles

    models: Models = dict.fromkeys(ground.providers)
    places = ModelFiles(ground.settings_file.parent)
    for name, wish in ground.of_kind(LlamaServerSettings).items():
        contexts = {model.name: model.context_length for model in places.installed(wish)}
        models[name] = {alias: contexts.get(alias) for alias in wish.models}
    for name, command in ground.of_kind(CommandSettings).items():
        models[name] = dict.fromkeys(command.models)
    for name, ollama_wish in ground.of_kind(OllamaSettings).items():
        if _ask(ollama_wish.url, "/api/version"):
            models[name] = dict.fromkeys(_ollama_models(ollama_wish.url))
    if ground.valet is not None:
        for told in ground.valet.of("/providers").get("providers") or []:
            if told.get("state") == "ready" and told.get("models"):
                models[str(told["name"])] = {m["name"]: m.get("contextLength") for m in told["models"]}
    elif ground.settings.providers is None and models.get(FOUND_OLLAMA) is None:
        return {}
    return models


def _ollama_models(url: str) -> dict[str, int]:
    """Its models and the bytes of their weights."""
    answer = _ask(url, "/api/tags")
    listed = answer.get("models") if isinstance(answer, dict) else None
    return {
        str(each.get("name")): int(each.get("size") or 0) for each in listed or [] if isinstance(each, dict)
    }


def conditions(ground: Ground) -> Finding:
    """What the running valet tells of its providers."""
    if ground.valet is None:
        return rules.of_conditions(None)
    told = ground.valet.of("/status").get("conditions") or []
    return rules.of_conditions(
        tuple(
            (str(each.get("provider")), str(each.get("type")), str(each.get("reason")))
            for each in told
            if each.get("status", True)
        )
    )
