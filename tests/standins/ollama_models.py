"""The Ollama stand-in's models and Go's way of writing times.

Facts: api/types.go (`Duration`), types/model/name.go of Ollama; Go's time.RFC3339Nano and ParseDuration.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from dataclasses import dataclass, field
from typing import Any

MAX_INT64_NS = 2**63 - 1  # what a keep_alive below 0 becomes
BLOBS_FOLDER = "/usr/share/ollama/.ollama/models/blobs"
DEFAULT_NAMES = (
    "llama3:latest",
    "qwen3:8b",
    "qwen3:70b",
    "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M",
)
DEFAULT_EMBEDDER = "nomic-embed-text:latest"
DEFAULT_CLOUD = "gpt-oss:120b-cloud"


class BadRequestError(Exception):
    """What Ollama answers with 400."""


@dataclass(kw_only=True)
class StandinModel:
    """A model on the stand-in's disk. `memory_bytes` is what its runner really allocates."""

    name: str
    memory_bytes: int = 8 * 2**20
    vram_share: float = 0.0  # of what /api/ps reports
    context_length: int = 131_072  # what it was trained for
    capabilities: tuple[str, ...] = ("completion", "tools")
    load_s: float | None = None  # None: the stand-in's own
    remote_model: str = ""
    modified_ns: int = field(default_factory=time.time_ns)

    @property
    def digest(self) -> str:
        """The manifest's digest, as the lists tell it."""
        return hashlib.sha256(b"manifest " + self.name.encode()).hexdigest()

    @property
    def blob_path(self) -> str:
        """The weights' file: named by another digest than the manifest's."""
        return f"{BLOBS_FOLDER}/sha256-{hashlib.sha256(b'weights ' + self.name.encode()).hexdigest()}"

    @property
    def family(self) -> str:
        return "nomic-bert" if self.capabilities == ("embedding",) else "llama"

    def details(self, *, is_listed: bool) -> dict[str, Any]:
        """ModelDetails. The list tells two fields more."""
        told: dict[str, Any] = {
            "parent_model": "",
            "format": "gguf",
            "family": self.family,
            "families": [self.family],
            "parameter_size": "8.0B",
            "quantization_level": "Q4_K_M",
        }
        if is_listed:
            told |= {"context_length": self.context_length, "embedding_length": 4096}
        return told


def default_models() -> list[StandinModel]:
    """Four that chat, one that embeds, one of the cloud."""
    chatting = [StandinModel(name=name) for name in DEFAULT_NAMES]
    embedder = StandinModel(name=DEFAULT_EMBEDDER, capabilities=("embedding",), context_length=2048)
    cloud = StandinModel(name=DEFAULT_CLOUD, memory_bytes=0, remote_model="gpt-oss:120b")
    return [*chatting, embedder, cloud]


def shortest_name(name: str) -> str:
    """`DisplayShortest` of Ollama's `ParseName`."""
    name = re.sub(r"^[a-z]+://", "", name.strip())
    for prefix in ("registry.ollama.ai/", "library/"):
        name = name.removeprefix(prefix)
    return name if name.rfind(":") > name.rfind("/") else f"{name}:latest"


def keep_alive_ns(value: Any) -> int | None:
    """`Duration.UnmarshalJSON`: a number is seconds, a string a Go duration, below 0 for ever."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        kind = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}[type(value)]
        raise BadRequestError(f"Unsupported type: '{kind}'")
    ns = parse_go_duration(value) if isinstance(value, str) else int(value * 1e9)
    return MAX_INT64_NS if ns < 0 else min(ns, MAX_INT64_NS)


def parse_go_duration(text: str) -> int:
    """time.ParseDuration, in nanoseconds; raises BadRequestError with Go's words."""
    units = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if body == "0":
        return 0
    total, rest = 0.0, body
    while rest:
        match = re.match(r"(\d+\.?\d*|\.\d+)([^\d.]*)", rest)
        if match is None:
            raise BadRequestError(f'time: invalid duration "{text}"')
        if not match[2]:
            raise BadRequestError(f'time: missing unit in duration "{text}"')
        if match[2] not in units:
            raise BadRequestError(f'time: unknown unit "{match[2]}" in duration "{text}"')
        total += float(match[1]) * units[match[2]]
        rest = rest[match.end() :]
    if not body or not math.isfinite(total) or total > MAX_INT64_NS:
        raise BadRequestError(f'time: invalid duration "{text}"')
    return sign * int(total)


def go_time(unix_ns: int, offset_minutes: int = 0) -> str:
    """RFC3339Nano: trailing zeros of the fraction are left out, `Z` only where the offset is 0."""
    seconds, ns = divmod(unix_ns, 10**9)
    moment = time.gmtime(seconds + offset_minutes * 60)
    fraction = f".{ns:09d}".rstrip("0").rstrip(".")
    hours, minutes = divmod(abs(offset_minutes), 60)
    offset = f"{'-' if offset_minutes < 0 else '+'}{hours:02d}:{minutes:02d}" if offset_minutes else "Z"
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + fraction + offset
