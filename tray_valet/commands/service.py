"""Starting, stopping and restarting a provider's server, by the user's word.

Decides: what `service` asks for, and that it tells how it went, not only that it has begun.
Must not: call it done before the valet has said that it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tray_valet.commands.client import Client
from tray_valet.commands.failures import CommandError, WrongUsage
from tray_valet.commands.tables import as_json, plain
from tray_valet.core.errors import InvalidValue
from tray_valet.core.models import check_model_name

# The valet's own bounds (looking, stopping, starting, answering) end before this.
PATIENCE_S = 90.0
_BEGIN_S = 30.0
_LOOK_S = 0.2
_ENDS = ("service_started", "service_stopped", "service_failed")


def service(
    client: Client,
    action: str,
    provider: str | None,
    *,
    is_forced: bool,
    is_json: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Have it done and print how it went. Raises WrongUsage, ApiError, CommandError when it failed."""
    _check(provider)
    if is_forced and action != "stop":
        raise WrongUsage("Only a stop can be forced.", remedy="Use: tray-valet service stop --force")
    before = _newest_id(client)
    path = "/stop/force" if is_forced else f"/{action}"
    begun = client.post(path, timeout_s=_BEGIN_S, provider=provider)
    end = None if begun.get("done") else _wait(client, str(begun.get("provider")), before, sleep)
    text = plain(end["text"] if end else begun.get("message"))
    if end is not None and end["kind"] == "service_failed":
        raise CommandError(text)
    print(as_json({**begun, "done": True, "message": text}) if is_json else text)


def _check(provider: str | None) -> None:
    try:
        if provider is not None:
            check_model_name(provider, param="provider")
    except InvalidValue as error:
        raise WrongUsage(f"“{provider}” is not a provider's name.", param="provider") from error


def _newest_id(client: Client) -> int:
    return max((entry["id"] for entry in _entries(client)), default=0)


def _wait(client: Client, provider: str, after: int, sleep: Callable[[float], None]) -> dict[str, Any]:
    looks = int(PATIENCE_S / _LOOK_S)
    for _ in range(looks):
        for entry in _entries(client):
            if entry["id"] > after and entry["kind"] in _ENDS and entry["text"].startswith(f"{provider} "):
                return entry
        sleep(_LOOK_S)
    raise CommandError(
        f"Nothing is known of {provider} after {PATIENCE_S:.0f} s.", remedy="See: tray-valet activity"
    )


def _entries(client: Client) -> list[dict[str, Any]]:
    return list(client.get("/activity", limit=50)["activity"])
