"""The settings of providers, pools and routes: one frozen class per kind of provider.

Decides: the keys, types, ranges and defaults of the sections `providers`, `pools` and `routes`.
Must not: read a file or the environment, or judge values against each other (`config_checks.py` does).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tray_valet.core.addresses import is_loopback_host, split_url
from tray_valet.core.models import ProviderKind

_DAY_S = 86_400

Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[int, Meta(ge=0, le=_DAY_S)] | Annotated[float, Meta(ge=0, le=_DAY_S)]
PositiveInt = Annotated[int, Meta(ge=1, le=1_000_000)]
ContextLength = Annotated[int, Meta(ge=512, le=100_000_000)]  # tokens
GpuIndex = Annotated[int, Meta(ge=0, le=1_023)]
Dollars = Annotated[int, Meta(ge=0, le=10**9)] | Annotated[float, Meta(ge=0, le=10**9)]


class WhenPaused(StrEnum):
    """What a request meets during a pause: the next candidate, a bounded wait, or a refusal."""

    NEXT = "next"
    WAIT = "wait"
    REFUSE = "refuse"


class Priority(StrEnum):
    """The place of a route's requests in the queue."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping of the settings file; its attributes are the file's keys.

    `repr` hides keys and tokens, so that no log line can show one.
    """

    def __repr__(self) -> str:
        shown = (
            f"{name}={'…' if name in SECRET_FIELDS and getattr(self, name) else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"


SECRET_FIELDS = frozenset({"api_key", "api_keys"})


class _UrlProvider(Section, frozen=True, kw_only=True):
    """A provider reached at an address. `models` are declared: pulled when missing, never deleted."""

    models: tuple[str, ...] = ()
    local: bool | None = None  # None: local if the address is loopback


class OllamaSettings(_UrlProvider, frozen=True, kw_only=True, tag_field="kind", tag="ollama"):
    """An Ollama service."""

    url: str = "http://127.0.0.1:11434"

    @property
    def kind(self) -> ProviderKind:
        return ProviderKind.OLLAMA


class LmStudioSettings(_UrlProvider, frozen=True, kw_only=True, tag_field="kind", tag="lm-studio"):
    """An LM Studio server."""

    url: str = "http://127.0.0.1:1234"
    api_key: str | None = None

    @property
    def kind(self) -> ProviderKind:
        return ProviderKind.LM_STUDIO


class VllmSettings(_UrlProvider, frozen=True, kw_only=True, tag_field="kind", tag="vllm"):
    """A vLLM server."""

    url: str = "http://127.0.0.1:8000"
    api_key: str | None = None

    @property
    def kind(self) -> ProviderKind:
        return ProviderKind.VLLM


class OpenAiSettings(_UrlProvider, frozen=True, kw_only=True, tag_field="kind", tag="openai"):
    """Anything that speaks the OpenAI API; `monthly_budget_usd` None = no limit."""

    url: str = "https://api.openai.com/v1"
    api_key: str | None = None
    monthly_budget_usd: Dollars | None = None

    @property
    def kind(self) -> ProviderKind:
        return ProviderKind.OPENAI


class GeminiSettings(_UrlProvider, frozen=True, kw_only=True, tag_field="kind", tag="gemini"):
    """Google's Gemini API; `monthly_budget_usd` None = no limit."""

    url: str = "https://generativelanguage.googleapis.com/v1beta"
    api_key: str | None = None
    monthly_budget_usd: Dollars | None = None

    @property
    def kind(self) -> ProviderKind:
        return ProviderKind.GEMINI


class LlamaServerModelSettings(Section, frozen=True, kw_only=True):
    """One model of a llama-server provider; a relative `model_path` lies under `base_models_path`."""

    model_path: str
    flags: tuple[str, ...] = ()
    cpu_only: bool = False


class LlamaServerSettings(Section, frozen=True, kw_only=True, tag_field="kind", tag="llama-server"):
    """llama.cpp servers as our own children, one for each model, on ports from `first_port` on.

    `llama_server_path` None = `llama-server` on PATH, else the embedded engine. `gpu_devices` None = all.
    """

    llama_server_path: str | None = None
    base_models_path: str | None = None
    first_port: Annotated[int, Meta(ge=1, le=65_535)] = 8085
    default_parallel: Annotated[int, Meta(ge=1, le=256)] = 1
    gpu_devices: tuple[GpuIndex, ...] | None = None
    models: dict[str, LlamaServerModelSettings] = {}
    local: bool | None = None

    @property
    def kind(self) -> ProviderKind:
        return ProviderKind.LLAMA_SERVER


class CommandModelSettings(Section, frozen=True, kw_only=True):
    """Any program that holds a model; `{port}` in `command`, `stop` and `health` is its port.

    `health` is the path that answers when it is ready; `stop` None = it is terminated.
    """

    command: tuple[str, ...]
    env: dict[str, str] = {}
    health: str = "/"
    stop: tuple[str, ...] | None = None
    cpu_only: bool = False


class CommandSettings(Section, frozen=True, kw_only=True, tag_field="kind", tag="command"):
    """Programs as our own children, started by commands that only the file can name."""

    models: dict[str, CommandModelSettings] = {}
    local: bool | None = None

    @property
    def kind(self) -> ProviderKind:
        return ProviderKind.COMMAND


ProviderSettings = (
    OllamaSettings
    | LlamaServerSettings
    | CommandSettings
    | OpenAiSettings
    | LmStudioSettings
    | VllmSettings
    | GeminiSettings
)


class PoolSettings(Section, frozen=True, kw_only=True):
    """Interchangeable providers, least loaded first; `models` () = every model they share."""

    providers: tuple[str, ...]
    models: tuple[str, ...] = ()


class CandidateSettings(Section, frozen=True, kw_only=True):
    """One place an alias may be served: a model at a provider (or pool) and changes to the request.

    `set` puts fields into the request, `strip` takes fields out of it.
    """

    provider: str
    model: str
    set: dict[str, Any] = {}
    strip: tuple[str, ...] = ()


class RouteSettings(Section, frozen=True, kw_only=True):
    """An alias: candidates in order, and what happens while paused.

    `num_ctx` in tokens, `keep_alive` in seconds or as a duration (`5m`, -1 = for ever); None = as the
    provider does it.
    """

    candidates: tuple[CandidateSettings, ...]
    when_paused: WhenPaused = WhenPaused.NEXT
    wait_seconds: Seconds = 60
    num_ctx: ContextLength | None = None
    keep_alive: int | float | str | None = None
    priority: Priority = Priority.NORMAL


def is_local(provider: ProviderSettings) -> bool:
    """Whether the provider's models take memory of this machine.

    As `local` says; else our own children always, an address if it is loopback.
    """
    if provider.local is not None:
        return provider.local
    if isinstance(provider, LlamaServerSettings | CommandSettings):
        return True
    parts = split_url(provider.url)
    return parts is not None and is_loopback_host(parts.host)
