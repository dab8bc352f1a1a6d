"""Models and where they are: the words that providers, the journal and the API share.

Decides: what a model name may look like and how a model on disk and a model in memory are described.
Must not: talk to a provider, or decide which model goes or stays (`eviction.py` does).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from tray_valet.core.errors import InvalidValue

_MODEL_NAME = re.compile(r"[A-Za-z0-9._:/@-]{1,300}")
MIN_CONTEXT_LENGTH = 512  # tokens; less is refused, as in contract.md


class ProviderKind(StrEnum):
    """The software behind a provider's address."""

    OLLAMA = "ollama"
    LLAMA_SERVER = "llama-server"
    COMMAND = "command"
    OPENAI = "openai"
    LM_STUDIO = "lm-studio"
    VLLM = "vllm"
    GEMINI = "gemini"


OWN_RUNNERS = (ProviderKind.LLAMA_SERVER, ProviderKind.COMMAND)  # their processes are our children


class ConditionType(StrEnum):
    """What can be the matter with a provider, or with its part in a pause."""

    UNREACHABLE = "unreachable"
    CANNOT_UNLOAD = "cannot_unload"
    CANNOT_KILL = "cannot_kill"
    RELOADED = "reloaded"  # a client loads at the provider directly, past the gate
    LOAD_FAILED = "load_failed"
    GIVEN_UP = "given_up"  # runners that crashed too often are not started again by themselves
    FILE_MISSING = "file_missing"  # the settings name a model's file that is not there; the others serve
    KEY_MISSING = "key_missing"  # the settings name a key that is nowhere to be found, or it is refused
    MEMORY_STILL_HELD = "memory_still_held"
    BUILT_IN_DEMO = "built_in_demo"  # no LLM software was found: the embedded demo model serves
    ENGINE_MISSING = "engine_missing"


TOLD_BY_PROVIDERS = (ConditionType.CANNOT_UNLOAD, ConditionType.FILE_MISSING, ConditionType.KEY_MISSING)


class Demand(StrEnum):
    """What a request for a model takes of this machine."""

    GPU = "gpu"
    CPU = "cpu"  # a `cpu_only` runner: a game does not mind it, RAM or CPU pressure does
    NOTHING = "nothing"  # it is answered elsewhere


class ModelRef(msgspec.Struct, frozen=True, order=True):
    """A model at a provider. `model` is canonical there (`llama3:latest` at Ollama)."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in memory, as its provider tells it at one moment."""

    name: str
    size_bytes: int = 0  # all memory it takes, RAM and VRAM; 0 = the provider doesn't say
    vram_bytes: int = 0  # the part on GPUs
    context_length: int | None = None  # tokens; None = the provider doesn't say
    ttl_left_s: float | None = None  # seconds until the provider unloads it by itself; None = never
    needs_gpu: bool = True  # False: `cpu_only`, goes on serving during a game
    pid: int | None = None  # its runner, where it is our own child
    is_in_background: bool = False  # on the CPU at idle priority, started or lowered so for a game
    slots: int | None = (
        None  # requests it works on at once; None = the provider doesn't say: no limit of ours
    )
    digest: str = ""


class InstalledModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the provider could load."""

    name: str
    size_bytes: int = 0
    context_length: int | None = None  # tokens, the most it was made for or is configured with
    modified_at: str = ""  # RFC 3339
    digest: str = ""
    details: dict[str, str] = {}
    can_chat: bool = True
    can_embed: bool = False
    can_prompt: bool = True
    can_stream: bool = True
    needs_gpu: bool = True


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to have a model in memory.

    `context_length` in tokens, None = the provider's own default. `ttl_s` in seconds, None = the
    provider's own default, `math.inf` = for ever. `is_in_background`: something else has the machine now
    (a game): a runner on the CPU gets few threads and idle priority.
    """

    model: str
    context_length: int | None = None
    ttl_s: float | None = None
    is_in_background: bool = False


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at a provider showed. `loading` names models that are on their way in; `problems` are
    the conditions that the provider tells of itself, with the sentence for each (remedy included);
    `unloadable`: models that the settings name and that are not there, with why."""

    loaded: tuple[LoadedModel, ...] = ()
    loading: tuple[str, ...] = ()
    version: str | None = None
    problems: Mapping[ConditionType, str] = {}
    unloadable: Mapping[str, str] = {}


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """Where the router sends a request for a model: base address without `/v1`, headers, name there.

    `streams_whole`: it notices that a caller has left only while it streams, so it is always asked to
    stream, and a whole answer is put together from that.
    """

    base_url: str
    model: str
    headers: dict[str, str] = {}
    kind: ProviderKind = ProviderKind.OPENAI
    streams_whole: bool = False


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is the case with a provider and that does not hide the rest of it."""

    type: ConditionType
    status: bool = True
    reason: str  # one plain sentence, remedy included
    since: float  # Unix seconds


def check_model_name(name: str, *, param: str = "model") -> str:
    """Return `name` if a model may be called that; raise InvalidValue naming `param` otherwise."""
    if not _MODEL_NAME.fullmatch(name) or ".." in name:
        raise InvalidValue(
            f"{name[:80]!r} is not a model name.",
            remedy="Use letters, digits and . _ : / @ - (300 at most), without “..”.",
            param=param,
        )
    return name


def check_context_length(num_ctx: int | None, *, param: str = "num_ctx") -> int | None:
    """Return `num_ctx` (tokens, None = default) if it is at least 512; raise InvalidValue otherwise."""
    if num_ctx is not None and num_ctx < MIN_CONTEXT_LENGTH:
        raise InvalidValue(
            f"A context of {num_ctx} tokens is too small.", remedy="Use 512 or more.", param=param
        )
    return num_ctx
