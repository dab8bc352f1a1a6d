"""The self-test's evidence: is a model really gone, and is it back as it was?

Decides: who is asked besides the valet, and which fields must agree. Must not: change anything.
"""

from __future__ import annotations

import http.client
import json
from typing import Any

import msgspec

from tray_valet.core.addresses import is_loopback_host, split_url
from tray_valet.core.models import ProviderKind

TTL_TOLERANCE_S = 60.0  # /status tells it as of the last look; a busy machine is slow to look
_ANSWER_S = 5.0
_ANSWER_BYTES = 8 * 2**20
_FIELDS = ("name", "provider", "context_length", "ttl_left_seconds")


class Witness(msgspec.Struct, frozen=True):
    """Who was asked, and whether it has the model."""

    source: str
    is_there: bool


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One field of one model, before the pause and after."""

    model: str
    field: str
    before: Any
    after: Any
    is_same: bool


def same_name(model: dict[str, Any], name: str) -> bool:
    """Whether a model of the API's is the one that the user means."""
    own = str(model.get("name"))
    full = f"{model.get('provider')}/{own}"
    return name in (own, full) or f"{name}:latest" in (own, full)


def is_resident(name: str, pid: int | None, provider: dict[str, Any]) -> Witness:
    """Ask somebody other than the valet: the runner's process, or the provider itself."""
    if pid:
        import psutil

        try:
            alive = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            alive = False
        return Witness(f"its process {pid}", alive)
    if provider.get("kind") == ProviderKind.OLLAMA and provider.get("url"):
        listed = _ollama_ps(str(provider["url"]))
        if listed is not None:
            return Witness("Ollama's own list", name in listed)
    return Witness("the valet's list", False)


def _ollama_ps(url: str) -> set[str] | None:
    """What Ollama says it has in memory; None where it does not tell."""
    parts = split_url(url)
    if parts is None or parts.scheme != "http" or not is_loopback_host(parts.host):
        return None
    connection = http.client.HTTPConnection(parts.host, parts.port or 80, timeout=_ANSWER_S)
    try:
        connection.request("GET", parts.path.rstrip("/") + "/api/ps")
        answer = json.loads(connection.getresponse().read(_ANSWER_BYTES))
        return {str(model.get("name")) for model in answer.get("models") or []}
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return None
    finally:
        connection.close()


def compared(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> tuple[Compared, ...]:
    """Every field of every model that was set aside, against what is there now."""
    there = {(model.get("provider"), model.get("name")): model for model in after}
    found = []
    for old in before:
        new = there.get((old.get("provider"), old.get("name")), {})
        for field in _FIELDS:
            was, now = old.get(field), new.get(field)
            found.append(
                Compared(
                    model=str(old.get("name")),
                    field=field,
                    before=was,
                    after=now,
                    is_same=_is_near(was, now) if field == "ttl_left_seconds" else was == now,
                )
            )
    return tuple(found)


def _is_near(before_s: float | None, after_s: float | None) -> bool:
    """Whether what was to be unloaded in a while is to be so still. 0 has run out: the default counts."""
    if before_s is None or after_s is None:
        return before_s is None and after_s is None
    return before_s <= 0 or abs(before_s - after_s) <= TTL_TOLERANCE_S
