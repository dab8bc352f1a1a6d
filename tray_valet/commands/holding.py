"""Setting the models aside and bringing them back, loading and unloading, by the user's word.

Decides: what `pause`, `resume`, `load` and `unload` ask for and what they say afterwards.
Must not: call a pause a pause before the valet has said that it is one.
"""

from __future__ import annotations

from typing import Any

from tray_valet.commands.client import LOAD_TIMEOUT_S, PAUSE_TIMEOUT_S, Client
from tray_valet.commands.failures import CommandError, WrongUsage
from tray_valet.commands.tables import as_json, gb, plain
from tray_valet.core.errors import InvalidValue
from tray_valet.core.models import check_context_length, check_model_name


def pause(
    client: Client, *, is_forced: bool, reason: str, for_s: float | None, pid: int | None, is_json: bool
) -> None:
    """Place the user's hold and print what was set aside. Raises CommandError if models are still there."""
    asked: dict[str, Any] = {"reason": reason or None, "for_seconds": for_s, "pid": pid}
    body = {name: value for name, value in asked.items() if value is not None}
    path = "/pause/force" if is_forced else "/pause"
    answer = client.post(path, body or None, timeout_s=PAUSE_TIMEOUT_S)
    state = _state_of(client, answer)
    if state != "paused":
        raise CommandError(
            f"The models are not out of the way yet (state: {state}).", remedy="See: tray-valet explain"
        )
    _say_state(client, answer, is_json=is_json)


def resume(client: Client, *, is_json: bool) -> None:
    """End the user's holds, override the others, and print how things stand."""
    answer = client.post("/resume", timeout_s=PAUSE_TIMEOUT_S)
    _say_state(client, answer, is_json=is_json)


def load(
    client: Client, model: str, *, num_ctx: int | None, provider: str | None, override: bool, is_json: bool
) -> None:
    """Load a model and wait until it is ready."""
    asked: dict[str, Any] = {"model": model, "num_ctx": num_ctx, "override": override or None}
    body = {name: value for name, value in asked.items() if value is not None}
    answer = client.post("/load", body, timeout_s=LOAD_TIMEOUT_S, provider=provider)
    if is_json:
        print(as_json(answer))
        return
    loaded = next((m for m in _models(client) if _is_named(m, model, provider)), None)
    takes = f" It takes {gb(loaded.get('size_mb'))}." if loaded and loaded.get("size_mb") else ""
    context = (
        f" with a context of {loaded['context_length']}" if loaded and loaded.get("context_length") else ""
    )
    print(f"{plain(model)} is loaded{context}.{takes}")


def unload(client: Client, model: str | None, *, provider: str | None, is_json: bool) -> None:
    """Take one model, or all, out of memory."""
    before = [] if is_json else _models(client)
    body = {"model": model} if model else None
    answer = client.post("/unload", body, timeout_s=PAUSE_TIMEOUT_S, provider=provider)
    if is_json:
        print(as_json(answer))
        return
    left = {(m.get("provider"), m.get("name")) for m in _models(client)}
    gone = [m for m in before if (m.get("provider"), m.get("name")) not in left]
    freed = gb(sum(m.get("size_mb") or 0 for m in gone))
    names = ", ".join(plain(m.get("name")) for m in gone)
    print(f"{names} unloaded. {freed} freed." if gone else "Nothing was loaded.")


def check_load_arguments(model: str | None, num_ctx: int | None) -> None:
    """Raise WrongUsage for a name or a context that no provider would take."""
    try:
        if model is not None:
            check_model_name(model)
        check_context_length(num_ctx)
    except InvalidValue as error:
        raise WrongUsage(error.message, remedy=error.remedy, param=error.param) from None


def _say_state(client: Client, answer: Any, *, is_json: bool) -> None:
    if is_json:
        print(as_json(answer))
        return
    watchdog = client.get("/watchdog")
    print(f"{plain(watchdog.get('title'))}\n{plain(watchdog.get('line'))}")


def _state_of(client: Client, answer: Any) -> str:
    state = answer.get("state") if isinstance(answer, dict) else None
    return str(state or client.get("/watchdog").get("state"))


def _models(client: Client) -> list[dict[str, Any]]:
    return list(client.get("/status").get("models") or [])


def _is_named(loaded: dict[str, Any], model: str, provider: str | None) -> bool:
    if provider is not None and loaded.get("provider") != provider:
        return False
    name = str(loaded.get("name"))
    return model in (name, f"{loaded.get('provider')}/{name}") or name == f"{model}:latest"
