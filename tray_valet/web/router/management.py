"""The router's management of models: eject, reset, and how each is.

Decides: the shapes, which are the seeds'. Must not: know how a model is unloaded or restarted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tray_valet.core.commands import ModelState, Valet
from tray_valet.core.errors import InvalidValue
from tray_valet.core.models import check_model_name
from tray_valet.core.watchdog import State
from tray_valet.web.edge.json_body import parse_object
from tray_valet.web.edge.wire_units import MIB, rounded_s
from tray_valet.web.router.lists import entry_of, states_by_ref

# In the seeds a server is ready or it is not; ours may be paused, and says so.
_SERVER_STATUS = {State.RUNNING: "ready"}


async def eject(valet: Valet, body: bytes) -> dict[str, Any]:
    """`POST /v1/models/eject`: take a model out of memory; answers in progress get the usual drain.

    Raises InvalidJson, InvalidValue, UnknownModel and what an unload raises.
    """
    name = _model_named(body)
    entry = entry_of(valet.catalog(), name)
    gone = await valet.unload(entry.ref.model, provider=entry.ref.provider)
    what = "has left memory" if gone else "was not in memory"
    return {
        "message": f"{name} {what}.",
        "model": entry.name,
        "provider": entry.ref.provider,
        "ejected": bool(gone),
        "status": "success",
    }


async def reset(valet: Valet, name: str) -> dict[str, Any]:
    """`POST /v1/models/{alias}/reset`: forget failures, so that the next request starts it anew."""
    entry = entry_of(valet.catalog(), name)
    state = await valet.reset_model(str(entry.ref))
    return {
        "message": f"{name} was reset. The next request loads it.",
        "alias": name,
        **model_status(state),
    }


def status_of_one(valet: Valet, name: str) -> dict[str, Any]:
    """`GET /v1/models/{alias}/status`. Raises UnknownModel, InvalidValue."""
    entry = entry_of(valet.catalog(), name)
    state = states_by_ref(valet.model_states()).get(entry.ref)
    if state is None:
        state = ModelState(name=entry.name, ref=entry.ref, status=entry.status)
    return {"alias": name, **model_status(state)}


def failed(valet: Valet) -> dict[str, Any]:
    """`GET /v1/models/failed`: models that could not be loaded, or that were given up."""
    models = [
        {
            "model": state.name,
            "attempts": state.attempts,
            "error": state.error,
            "status": state.status,
            "provider": state.ref.provider,
            "retry_in_seconds": state.retry_in_s,
        }
        for state in valet.model_states()
        if state.status == "failed"  # one that crashed is started again by itself
    ]
    said = f"{len(models)} of the models cannot be used now." if models else "No model has failed."
    if models:
        said += " POST /v1/models/{name}/reset forgets it."
    return {"failed_models": models, "message": said}


def status_of_all(valet: Valet) -> dict[str, Any]:
    """`GET /v1/models/status`: the server and every model; an alias is listed as the model it stands for."""
    states = valet.model_states()
    return {
        "server": server_status(valet),
        "models": {state.name: model_status(state) for state in states},
        "summary": dict(Counter(state.status for state in states)),
    }


def server_status(valet: Valet) -> dict[str, Any]:
    """The server: `ready`, or the pause's state and why."""
    snapshot = valet.snapshot()
    return {
        "status": _SERVER_STATUS.get(snapshot.state, snapshot.state.value),
        "state": snapshot.state.value,
        "reason": snapshot.last_reason if snapshot.state is not State.RUNNING else "",
    }


def model_status(state: ModelState) -> dict[str, Any]:
    """One model: the seeds' status, port and vram_mb, and ours."""
    return {
        "status": state.status,
        "port": state.port,
        "vram_mb": state.vram_bytes // MIB,
        "size_mb": state.size_bytes // MIB,
        "provider": state.ref.provider,
        "model": state.ref.model,
        "load_seconds": rounded_s(state.load_s),
        "error": state.error or None,
        "attempts": state.attempts,
        "retry_in_seconds": None if state.retry_in_s is None else round(state.retry_in_s, 1),
    }


def _model_named(body: bytes) -> str:
    name = parse_object(body or b"{}").get("model")
    if not isinstance(name, str) or not name:
        raise InvalidValue("The request names no model.", remedy='Send {"model": "its name"}.', param="model")
    return check_model_name(name)
