"""The check-up of what runs models: Ollama, llama.cpp, the model files and the room for them.

Decides: what the observations mean and what helps. Must not: look at anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from tray_valet.core.checkup import Finding, Topic
from tray_valet.core.models import ConditionType
from tray_valet.core.wording import size

OLLAMA = Topic("ollama", "Ollama")
OTHER_SERVERS = Topic("servers", "Other servers")
ENGINE = Topic("engine", "llama.cpp engine")
CPU = Topic("cpu", "Processor")
MODEL_FILES = Topic("model_files", "Model files")
FIT = Topic("model_sizes", "Room for the models")
OLLAMA_RIGHTS = Topic("ollama_rights", "Rights over Ollama")
OLLAMA_CLIENTS = Topic("ollama_clients", "Clients past the valet")
OLLAMA_SETTINGS = Topic("ollama_settings", "Ollama's own settings")
CONDITIONS = Topic("conditions", "What providers tell")

# Since then /api/ps tells the context of a loaded model, without which it cannot come back as it was
# (https://github.com/ollama/ollama/pull/11331, `ProcessModelResponse.ContextLength`).
OLDEST_OLLAMA = (0, 10, 0)
_MANY_SLOTS = 8
_BROKEN = frozenset(
    {
        ConditionType.UNREACHABLE,
        ConditionType.LOAD_FAILED,
        ConditionType.GIVEN_UP,
        ConditionType.KEY_MISSING,
        ConditionType.ENGINE_MISSING,
    }
)


class ServerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A server at an address. `version` "" = something answers there that is not what it should be."""

    provider: str
    url: str
    is_answering: bool
    version: str | None = None
    is_installed: bool = True
    is_configured: bool = True  # named in the settings, not only looked for


def of_ollama(servers: tuple[ServerSeen, ...]) -> Finding:
    """Every Ollama that the settings mean."""
    if not servers:
        return OLLAMA.ok("The settings name none.")
    for seen in servers:
        if not seen.is_answering:
            return _silent_ollama(seen)
        if not seen.version:
            return OLLAMA.bad(
                f"Something answers at {seen.url}, but it is not Ollama.",
                f"Correct providers.{seen.provider}.url, or start Ollama there.",
            )
        if version_of(seen.version) < OLDEST_OLLAMA:
            oldest = ".".join(map(str, OLDEST_OLLAMA))
            return OLLAMA.warn(
                f"Ollama {seen.version} at {seen.url} is old: it does not tell with which context a model is "
                "loaded.",
                f"Update it to {oldest} or newer: https://ollama.com/download",
            )
    return OLLAMA.ok(" ".join(f"Version {seen.version} answers at {seen.url}." for seen in servers))


def _silent_ollama(seen: ServerSeen) -> Finding:
    install = "Install it from https://ollama.com/download, or remove it from the settings."
    if not seen.is_configured:
        return OLLAMA.warn(
            f"No Ollama answers at {seen.url}, so only the built-in demo model serves.",
            "Start Ollama (ollama serve), or add a provider to the settings."
            if seen.is_installed
            else "Install Ollama from https://ollama.com/download, or add a provider to the settings.",
        )
    if not seen.is_installed:
        return OLLAMA.bad(f"Ollama does not answer at {seen.url} and was not found on this machine.", install)
    return OLLAMA.bad(
        f"Ollama does not answer at {seen.url}.", "Start it: tray-valet service start, or ollama serve"
    )


def version_of(text: str) -> tuple[int, ...]:
    """`0.12.3-rc1` as (0, 12, 3); what has no number counts as new (it was built from source)."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
    numbers = tuple(int(part) for part in found.groups()) if found else (0, 0, 0)
    return numbers if any(numbers) else (999,)


def of_other_servers(servers: tuple[ServerSeen, ...]) -> Finding:
    """The other servers of this machine and network; clouds are not asked."""
    silent = [seen for seen in servers if not seen.is_answering]
    if silent:
        first = silent[0]
        return OTHER_SERVERS.bad(
            f"Nothing answers at {first.url} (provider {first.provider}).",
            f"Start that server, or correct providers.{first.provider}.url.",
        )
    if not servers:
        return OTHER_SERVERS.ok("The settings name none on this machine.")
    return OTHER_SERVERS.ok(" ".join(f"{seen.provider} answers at {seen.url}." for seen in servers))


def of_engine(engines: Mapping[str, str], problems: Mapping[str, tuple[str, str]]) -> Finding:
    """`engines`: provider → the engine that it would start; `problems`: provider → (what, remedy)."""
    for provider, (says, remedy) in problems.items():
        return ENGINE.bad(f"{provider}: {says}", remedy)
    if not engines:
        return ENGINE.ok("None is needed.")
    return ENGINE.ok(", ".join(f"{provider}: {path}" for provider, path in engines.items()) + ".")


def of_cpu(*, has_avx2: bool | None, is_needed: bool) -> Finding:
    """`has_avx2` None = another kind of processor, or it cannot be told. The built-in engine needs it."""
    if has_avx2 is None:
        return CPU.ok("Nothing is known against it.")
    if has_avx2:
        return CPU.ok("It has AVX2.")
    says = "This processor has no AVX2, which the built-in llama.cpp engine needs."
    if is_needed:
        return CPU.bad(says, "Install a llama.cpp that was built for this machine, so that it is on PATH.")
    return CPU.info(says, "Use Ollama or a llama-server that was built for this machine.")


class FileSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A configured model file. `problem` "" = it is a readable GGUF file of `size_bytes`."""

    place: str  # providers.local.models.qwen
    path: str
    problem: str = ""
    is_relative_to_settings: bool = False  # a relative path, and no base_models_path
    size_bytes: int = 0
    is_cpu_only: bool = False


def of_model_files(files: tuple[FileSeen, ...]) -> Finding:
    """Every model file that the settings name."""
    bad = [seen for seen in files if seen.problem]
    if bad:
        first = bad[0]
        more = f" {len(bad) - 1} more are wrong too." if len(bad) > 1 else ""
        hint = (
            "It is a relative path: set base_models_path, or write the whole path."
            if first.is_relative_to_settings
            else "Correct model_path or base_models_path."
        )
        return MODEL_FILES.bad(f"{first.place}: {first.path} {first.problem}.{more}", hint)
    if not files:
        return MODEL_FILES.ok("The settings name none.")
    return MODEL_FILES.ok(f"All {len(files)} are there." if len(files) > 1 else "It is there.")


class SizeSeen(msgspec.Struct, frozen=True):
    """A model that could be loaded. `size_bytes`: its weights."""

    name: str
    size_bytes: int
    is_cpu_only: bool = False


class RoomSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's memory in all. `vram_bytes` None = not measured now."""

    ram_bytes: int
    vram_bytes: int | None = 0
    multiplier: float = 1.1
    pause_pct: float = 85.0


def of_sizes(models: tuple[SizeSeen, ...], room: RoomSeen) -> Finding:
    """Whether each model could be in memory at all."""
    vram_bytes = room.vram_bytes or 0
    by_size = sorted(models, key=lambda model: -model.size_bytes)
    for model in by_size:
        needed_bytes = int(model.size_bytes * room.multiplier)
        limit_bytes = room.ram_bytes + (0 if model.is_cpu_only else vram_bytes)
        if needed_bytes > limit_bytes and (room.vram_bytes is not None or model.is_cpu_only):
            return FIT.bad(
                f"{model.name} takes about {size(needed_bytes)}; this machine has {size(limit_bytes)} of RAM"
                f"{'' if model.is_cpu_only or not vram_bytes else ' and VRAM'}.",
                "Use a smaller model, or one with a stronger quantization.",
            )
    for model in by_size:
        if model.size_bytes > vram_bytes and model.size_bytes > room.ram_bytes * room.pause_pct / 100:
            return FIT.warn(
                f"{model.name} ({size(model.size_bytes)}) alone is more than "
                f"{room.pause_pct:g}% of the RAM, where pressure begins.",
                "Use a smaller one, or raise thresholds.ram_pause_pct.",
            )
    if not models:
        return FIT.ok("No model is known that would not fit.")
    return FIT.ok(f"The largest is {by_size[0].name} with {size(by_size[0].size_bytes)}.")


class OllamaProcessSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Ollama's server on this machine. `owner` "" = the system does not tell, or it is us."""

    pid: int | None = None
    owner: str = ""
    is_ours: bool = True
    environment: Mapping[str, str] | None = None  # its OLLAMA_ variables; None = they cannot be read


def of_ollama_rights(seen: OllamaProcessSeen, *, is_root: bool) -> Finding:
    """Whether its runners may be ended by force, should it not let go of a model."""
    if seen.pid is None:
        return OLLAMA_RIGHTS.ok("No Ollama runs on this machine.")
    if seen.is_ours or is_root:
        return OLLAMA_RIGHTS.ok(f"Ollama (PID {seen.pid}) is yours, and its runners can be ended.")
    return OLLAMA_RIGHTS.warn(
        f"Ollama (PID {seen.pid}) belongs to {seen.owner or 'another user'}: it is asked to unload, but a "
        "runner that hangs cannot be ended.",
        "Run Ollama as your own user (ollama serve), or restart it when it hangs: "
        "sudo systemctl restart ollama",
    )


def of_ollama_clients(clients: tuple[str, ...] | None, router_url: str) -> Finding:
    """`clients`: programs (name and PID) connected to Ollama that are not the valet; None = not told."""
    if clients is None:
        return OLLAMA_CLIENTS.unknown("The system does not tell who is connected to Ollama.")
    if clients:
        return OLLAMA_CLIENTS.warn(
            f"{', '.join(clients)} talks to Ollama directly and can load models during a game.",
            f"Point it at {router_url} instead, or set router.port to 11434 and move Ollama to another port "
            "(OLLAMA_HOST).",
        )
    return OLLAMA_CLIENTS.ok("Nobody is connected to Ollama past the valet at this moment.")


def of_ollama_settings(seen: OllamaProcessSeen, urls: tuple[str, ...], own_host: str | None) -> Finding:
    """`own_host`: OLLAMA_HOST as commands of this user have it, where it means another address."""
    variables = seen.environment or {}
    keep_alive = variables.get("OLLAMA_KEEP_ALIVE", "").strip()
    if keep_alive.startswith("-"):
        return OLLAMA_SETTINGS.warn(
            f"OLLAMA_KEEP_ALIVE={keep_alive} keeps every model in memory for ever.",
            "Remove it, and let models.idle_timeout_seconds do it; put the router in front of Ollama.",
        )
    if variables.get("OLLAMA_HOST", "").strip().removeprefix("http://").startswith(("0.0.0.0", "[::]", "*")):
        return OLLAMA_SETTINGS.warn(
            "OLLAMA_HOST opens Ollama to the whole network, without a key and past the valet.",
            "Set OLLAMA_HOST=127.0.0.1 and let the router answer the network, with router.api_keys.",
        )
    slots = variables.get("OLLAMA_NUM_PARALLEL", "").strip()
    if slots.isdigit() and int(slots) >= _MANY_SLOTS:
        return OLLAMA_SETTINGS.warn(
            f"OLLAMA_NUM_PARALLEL={slots} makes every model's context {slots} times as large in memory.",
            "Use 1 to 4, unless as many people ask at once.",
        )
    if own_host is not None:
        return OLLAMA_SETTINGS.warn(
            f"OLLAMA_HOST is {own_host} here, but the settings look for Ollama at {', '.join(urls)}.",
            "Set the provider's url to the same address.",
        )
    if seen.pid is not None and seen.environment is None:
        return OLLAMA_SETTINGS.unknown("They belong to another user and cannot be read.")
    return OLLAMA_SETTINGS.ok("Nothing unusual.")


def of_conditions(told: tuple[tuple[str, str, str], ...] | None) -> Finding:
    """`told`: (provider, type, reason) as the running valet has them; None = no valet was asked."""
    if told is None:
        return CONDITIONS.info("No valet runs that could tell of its providers.")
    shown = [each for each in told if each[1] != ConditionType.BUILT_IN_DEMO]
    if not shown:
        return CONDITIONS.ok("Nothing is the matter with any provider.")
    provider, kind, reason = next((each for each in shown if each[1] in _BROKEN), shown[0])
    remedy = "See: tray-valet providers"
    says = f"{provider}: {reason}"
    return CONDITIONS.bad(says, remedy) if kind in _BROKEN else CONDITIONS.warn(says, remedy)
