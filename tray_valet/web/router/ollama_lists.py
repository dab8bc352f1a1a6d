"""What the router answers in Ollama's own dialect: /api/tags, /api/ps, /api/version and the greeting.

Decides: how models of any provider look to a client that expects an Ollama. Must not: ask a provider.

Source: Ollama's `api/types.go` (ListModelResponse, ProcessModelResponse, ModelDetails) and `docs/api.md`;
its Python client parses every time, so a time that is not known is Go's zero time, as from Ollama itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from tray_valet import __version__
from tray_valet.core.commands import CatalogEntry, Valet
from tray_valet.core.models import LoadedModel, ModelRef, ProviderKind
from tray_valet.core.snapshot import Snapshot

# Clients look for the first three words.
GREETING = "Ollama is running (so says Tray Valet, which answers in its place)"
_NO_TIME = "0001-01-01T00:00:00Z"
_NEVER = timedelta(days=292 * 365)  # how Ollama writes “for ever”: the longest duration that Go knows
_API_VERSION = "0.12.0"  # whose API ours is, where there is no Ollama to name its own


def tags(catalog: Iterable[CatalogEntry]) -> dict[str, Any]:
    """`GET /api/tags`: what can be asked for, aliases included."""
    return {
        "models": [
            {
                "name": entry.name,
                "model": entry.name,
                "modified_at": _time(entry.modified_at),
                "size": entry.size_bytes,
                "digest": _bare(entry.digest),
                "details": _details(entry),
                "context_length": entry.context_length,
                "provider": entry.ref.provider,
            }
            for entry in catalog
        ]
    }


def processes(valet: Valet) -> dict[str, Any]:
    """`GET /api/ps`: what is in memory, at any provider."""
    snapshot = valet.snapshot()
    entries = {entry.ref: entry for entry in valet.catalog() if not entry.is_alias}
    return {
        "models": [
            _process(ref, model, entries.get(ref), snapshot.taken_at)
            for view in snapshot.providers
            for model in view.loaded
            for ref in (ModelRef(view.name, model.name),)
        ]
    }


def version(snapshot: Snapshot) -> dict[str, Any]:
    """`GET /api/version`: the version of an Ollama behind us, for clients that need a certain one."""
    known = (v.version for v in snapshot.providers if v.kind is ProviderKind.OLLAMA and v.version)
    return {"version": next(known, _API_VERSION), "tray_valet": __version__}


def _process(ref: ModelRef, model: LoadedModel, entry: CatalogEntry | None, now: float) -> dict[str, Any]:
    name = entry.name if entry is not None else str(ref)
    left = _NEVER if model.ttl_left_s is None else timedelta(seconds=min(model.ttl_left_s, 1e9))
    return {
        "name": name,
        "model": name,
        "size": model.size_bytes,
        "digest": _bare(model.digest or (entry.digest if entry is not None else "")),
        "details": _details(entry),
        "expires_at": _written(datetime.fromtimestamp(now, UTC) + left),
        "size_vram": model.vram_bytes,
        "context_length": model.context_length or 0,
        "provider": ref.provider,
    }


def _details(entry: CatalogEntry | None) -> dict[str, Any]:
    known = entry.details if entry is not None else {}
    family = known.get("family") or known.get("architecture", "")
    return {
        "parent_model": known.get("parent_model", ""),
        "format": known.get("format", ""),
        "family": family,
        "families": [family] if family else None,
        "parameter_size": known.get("parameter_size", ""),
        "quantization_level": known.get("quantization_level", ""),
    }


def _bare(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _time(text: str) -> str:
    """The time as it is known, if it is one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _NO_TIME
    return text if moment.tzinfo is not None else _written(moment.replace(tzinfo=UTC))


def _written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
