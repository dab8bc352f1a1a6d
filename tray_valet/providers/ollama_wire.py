"""What Ollama's API answers, as typed values.

Decides: which fields are read and what a missing one means; older versions and look-alikes leave many out.
Must not: talk to Ollama (`ollama_api.py` does).

Facts: api/types.go of Ollama: ProcessModelResponse, ListModelResponse, ShowResponse, ModelDetails.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import msgspec

from tray_valet.core.models import InstalledModel, LoadedModel
from tray_valet.providers.http_client import NOT_JSON
from tray_valet.providers.ollama_names import canonical_name, is_cloud_name
from tray_valet.providers.ollama_times import ttl_left_s

_EMBEDDING_FAMILIES = frozenset({"bert", "nomic-bert", "nomic-bert-moe", "xlm-roberta", "jina-bert-v2"})
# `ollama show` prints the weights' file in the Modelfile. Ollama names the file by the digest of the
# weights, which is another one than the model's own digest in its lists (that of the manifest).
_BLOB = re.compile(r"sha256[-:][0-9a-f]{8,64}")


class PsModel(msgspec.Struct, frozen=True):
    """One entry of /api/ps."""

    name: str = ""
    model: str = ""
    size: int | None = None
    size_vram: int | None = None
    digest: str | None = None
    expires_at: str | None = None
    context_length: int | None = None
    remote_model: str | None = None
    remote_host: str | None = None

    @property
    def is_cloud(self) -> bool:
        return bool(self.remote_model or self.remote_host) or is_cloud_name(self.name or self.model)


class PsAnswer(msgspec.Struct, frozen=True):
    """/api/ps."""

    models: list[PsModel] | None = None


class TagModel(msgspec.Struct, frozen=True):
    """One entry of /api/tags. `details` and `capabilities` grew over the versions."""

    name: str = ""
    model: str = ""
    size: int | None = None
    digest: str | None = None
    modified_at: str | None = None
    details: dict[str, Any] | None = None
    capabilities: list[str] | None = None
    remote_model: str | None = None
    remote_host: str | None = None

    @property
    def canonical(self) -> str:
        return canonical_name(self.name or self.model)

    @property
    def is_cloud(self) -> bool:
        return bool(self.remote_model or self.remote_host) or is_cloud_name(self.canonical)

    @property
    def context_length(self) -> int | None:
        length = (self.details or {}).get("context_length")
        return length if isinstance(length, int) and length > 0 else None


class TagsAnswer(msgspec.Struct, frozen=True):
    """/api/tags."""

    models: list[TagModel] | None = None


class ShowAnswer(msgspec.Struct, frozen=True):
    """/api/show, the part that is read."""

    modelfile: str | None = None
    model_info: dict[str, Any] | None = None
    capabilities: list[str] | None = None

    @property
    def context_length(self) -> int | None:
        info = self.model_info or {}
        length = info.get(f"{info.get('general.architecture', '')}.context_length")
        return length if isinstance(length, int) and length > 0 else None

    @property
    def blobs(self) -> tuple[str, ...]:
        """The names of its files under Ollama's `blobs` folder (`sha256-…`)."""
        lines = (self.modelfile or "").splitlines()
        found = (_BLOB.search(line) for line in lines if line.startswith(("FROM ", "ADAPTER ")))
        return tuple(match[0].replace(":", "-") for match in found if match)


class VersionAnswer(msgspec.Struct, frozen=True):
    """/api/version."""

    version: str = ""


class RunAnswer(msgspec.Struct, frozen=True):
    """/api/generate and /api/embed, whole, without a prompt; any error of any route."""

    error: Any = None
    done_reason: str | None = None


def reason_of(content: bytes) -> str:
    """The error text of an answer's body: `{"error": "…"}`, or its first 300 characters."""
    try:
        error = msgspec.json.decode(content, type=RunAnswer).error
    except NOT_JSON:
        error = None
    if isinstance(error, dict):
        error = error.get("message")
    return str(error) if error else content[:300].decode(errors="replace").strip() or "no reason given"


def loaded_models(answer: PsAnswer, *, now_s: float, cloud: Collection[str]) -> tuple[LoadedModel, ...]:
    """Tell what is in this machine's memory; `cloud` names models that never are. `now_s`: Unix time."""
    return tuple(
        LoadedModel(
            name=canonical_name(entry.name or entry.model),
            size_bytes=max(entry.size or 0, 0),
            vram_bytes=max(entry.size_vram or 0, 0),
            context_length=entry.context_length or None,
            ttl_left_s=ttl_left_s(entry.expires_at, now_s),
            digest=entry.digest or "",
        )
        for entry in answer.models or ()
        if not entry.is_cloud and canonical_name(entry.name or entry.model) not in cloud
    )


def installed_model(entry: TagModel, shown: ShowAnswer | None) -> InstalledModel:
    """Describe a model on disk from its list entry and, where that says too little, from /api/show."""
    capabilities = _capabilities(entry, shown)
    can_complete = "completion" in capabilities
    details = {key: value for key, value in (entry.details or {}).items() if isinstance(value, str)}
    if entry.remote_model:
        details["remote_model"] = entry.remote_model
    return InstalledModel(
        name=entry.canonical,
        size_bytes=max(entry.size or 0, 0),
        context_length=entry.context_length or (shown.context_length if shown else None),
        modified_at=entry.modified_at or "",
        digest=entry.digest or "",
        details=details,
        can_chat=can_complete,
        can_embed="embedding" in capabilities,
        can_prompt=can_complete,
        can_stream=can_complete,
        needs_gpu=not entry.is_cloud,
    )


def _capabilities(entry: TagModel, shown: ShowAnswer | None) -> frozenset[str]:
    told = entry.capabilities or (shown.capabilities if shown else None)
    if told:
        return frozenset(told)
    # Before 0.6.4 no route told them.
    family = str((entry.details or {}).get("family", "")).lower()
    is_embedder = family in _EMBEDDING_FAMILIES or "embed" in entry.canonical.lower()
    return frozenset({"embedding"} if is_embedder else {"completion"})
