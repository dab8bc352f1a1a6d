"""Every operation of the control API: what it is for, what it takes, what it may answer.

Decides: the table that the description is made of; tests hold it against the routes and their answers.
Must not: know how a description is built (`control_openapi.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tray_valet.core.models import MIN_CONTEXT_LENGTH
from tray_valet.web import openapi_forms as form

JSON, SSE, HTML = "application/json", "text/event-stream", "text/html"
_MODEL = {"type": "string", "pattern": r"^[A-Za-z0-9._:/@-]{1,300}$"}
_TEXT = {"type": "string", "maxLength": 500}
_SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": 31_622_400}
_PID = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_PCT = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
_GAME, _HOLD = "steam:1145360", "hold-1"
_DOWNLOAD = {
    "id": "6f2c1d0a9b3e",
    "model": "llama3.2:3b",
    "provider": "ollama",
    "state": "running",
    "status": "pulling dde5aa3fc5ff",
    "completed_bytes": 524_288_000,
    "total_bytes": 2_019_377_376,
    "percent": 26.0,
    "attempts": 0,
    "error": None,
    "added_at": 1_760_000_000.0,
    "next_try_at": None,
    "ended_at": None,
}


class Op(msgspec.Struct, frozen=True, kw_only=True):
    """An operation. `answers`: status → (what it means, form); `failures`: the statuses beside the usual."""

    method: str
    path: str
    tag: str
    summary: str
    answers: Mapping[int, tuple[str, type[form.Form] | None]]
    description: str = ""
    kind: str = JSON
    body: Mapping[str, Any] | None = None  # JSON schema of the body
    is_body_needed: bool = False
    body_example: Any = None
    example: Any = None  # of the first answer
    failures: tuple[int, ...] = ()
    parameters: tuple[Mapping[str, Any], ...] = ()


def _object(needed: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    shape = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**shape, "required": list(needed)} if needed else shape


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(schema), {"type": "null"}]}


def _path(
    name: str, example: str, description: str, schema: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    shape = schema or {"type": "string", "minLength": 1}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": shape,
        "example": example,
        "description": description,
    }


def _query(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


_PROVIDER = _query("provider", "A provider's name, where several could be meant.", _MODEL)
_OK = "Done."


def _get(path: str, tag: str, summary: str, answer: type[form.Form], example: Any, **more: Any) -> Op:
    answers = {200: ("The answer.", answer)}
    return Op(method="get", path=path, tag=tag, summary=summary, answers=answers, example=example, **more)


def _post(
    path: str, tag: str, summary: str, answers: Mapping[int, tuple[str, type[form.Form] | None]], **more: Any
) -> Op:
    return Op(method="post", path=path, tag=tag, summary=summary, answers=answers, **more)


_LOOK: tuple[Op, ...] = (
    _get(
        "/",
        "State",
        "Who answers here.",
        form.Root,
        {"name": "Tray Valet", "version": "1.0.0", "status": "/status"},
    ),
    _get("/status", "State", "Everything at one moment, from the last sample.", form.Status, None),
    _get("/watchdog", "State", "The state and its last reason.", form.Watchdog, None),
    _get("/metrics", "State", "A live sample of the machine.", form.Metrics, None),
    _get("/explain", "State", "Why it is as it is: every signal, hold and game.", form.Explain, None),
    _get(
        "/memory",
        "State",
        "Who has the memory, as bars.",
        form.MemoryBars,
        {"vram": None, "ram": None, "gpu_names": []},
    ),
    _get(
        "/history",
        "State",
        "How full the machine was.",
        form.History,
        {"minutes": 60, "interval_seconds": 60.0, "samples": []},
        parameters=(_query("minutes", "How far back.", {"type": "integer", "minimum": 1, "maximum": 1440}),),
    ),
    _get(
        "/activity",
        "State",
        "What happened, newest first.",
        form.Activity,
        {
            "activity": [
                {
                    "id": 1,
                    "at": 1_760_000_000.0,
                    "kind": "valet_started",
                    "text": "Tray Valet started.",
                    "problem": False,
                }
            ]
        },
        parameters=(_query("limit", "How many.", {"type": "integer", "minimum": 1, "maximum": 1000}),),
    ),
    _get(
        "/logs",
        "State",
        "The end of the valet's own log, or what a model's runner wrote last.",
        form.Logs,
        {"runner": None, "lines": ['{"message": "Tray Valet started."}']},
        parameters=(
            _query("runner", "A model's name.", {**_MODEL, "pattern": r"^[A-Za-z0-9._:/@-]{0,300}$"}),
        ),
        failures=(404, 502, 504),
    ),
    Op(
        method="get",
        path="/events",
        tag="State",
        summary="What happens, as server-sent events.",
        description="`snapshot` (as /status) first, then an event for each fact: `game_started`, "
        "`models_set_aside`, `download_progress` … A slow reader gets a fresh snapshot for what it missed.",
        answers={200: ("Events without an end.", None)},
        kind=SSE,
        example='event: snapshot\ndata: {"version": "1.0.0"}\n\n',
        failures=(429,),
    ),
    _get(
        "/games",
        "Games",
        "The games that are known and those that run.",
        form.Games,
        {"known": [], "running": []},
    ),
    Op(
        method="put",
        path="/games/{id}",
        tag="Games",
        summary="Whether the models step aside for a game; kept as a rule of the settings.",
        parameters=(_path("id", _GAME, "Its key, its store's id, or its name."),),
        body=_object(("action",), action={"type": "string", "enum": ["on", "off", "ask"]}),
        is_body_needed=True,
        body_example={"action": "off"},
        answers={200: (_OK, form.GameChosen)},
        example={"ok": True, "key": _GAME, "name": "Hades", "action": "off"},
        failures=(404, 409, 500, 504),
    ),
    _get(
        "/ledger",
        "Games",
        "How often the models stepped aside, and how long that took.",
        form.Ledger,
        {"games": [], "times": 0, "freed_mb": 0},
    ),
    Op(
        method="delete",
        path="/ledger",
        tag="Games",
        summary="Forget one game's record, or all.",
        parameters=(_query("game", "Its key or name.", {"type": "string", "minLength": 1}),),
        answers={200: (_OK, form.Forgotten)},
        example={"forgotten": 1},
        failures=(404,),
    ),
)
_HOLDS: tuple[Op, ...] = (
    *(
        _post(
            path,
            "Pause",
            summary,
            {
                200: ("Paused: the models are gone.", form.PauseDone),
                202: ("Begun; it takes longer.", form.PauseDone),
            },
            body=_object(
                reason=_or_null(_TEXT),
                for_seconds=_or_null(_SECONDS),
                pid=_or_null(_PID),
                force={"type": "boolean"},
            ),
            body_example={"reason": "rendering", "for_seconds": 3600},
            failures=(429,) if path == "/pause" else (),
        )
        for path, summary in (
            ("/pause", "Set the models aside until /resume."),
            ("/pause/force", "The same at once: no drain, runners are killed."),
        )
    ),
    _post(
        "/resume",
        "Pause",
        "Bring the models back, in spite of a game that runs.",
        {200: ("Running.", form.PauseDone), 202: ("Begun; it takes longer.", form.PauseDone)},
        body=_object(),
        failures=(429,),
    ),
    _get("/holds", "Pause", "The active reasons to stay paused.", form.Holds, {"holds": []}),
    _post(
        "/holds",
        "Pause",
        "A program asks the models to step aside.",
        {201: ("It is in effect.", form.HoldPlaced)},
        body=_object(
            ("owner",),
            owner={"type": "string", "minLength": 1, "maxLength": 100},
            reason=_or_null(_TEXT),
            ttl_seconds=_or_null(_SECONDS),
            pid=_or_null(_PID),
        ),
        is_body_needed=True,
        body_example={"owner": "blender", "reason": "rendering", "ttl_seconds": 600},
        example={"id": _HOLD, "state": "paused"},
    ),
    Op(
        method="delete",
        path="/holds/{id}",
        tag="Pause",
        summary="The program no longer needs it.",
        parameters=(_path("id", _HOLD, "What POST /holds answered."),),
        answers={200: (_OK, form.HoldEnded)},
        example={"ok": True, "id": _HOLD, "state": "resuming"},
        failures=(404, 409),
    ),
)
_MODELS: tuple[Op, ...] = (
    _get(
        "/models",
        "Models",
        "What could be loaded, over all providers that answer.",
        form.Models,
        {"models": []},
    ),
    _post(
        "/load",
        "Models",
        "Load a model and wait until it is ready.",
        {200: ("It is ready.", form.LoadDone)},
        description="During a game 409 with the reason, unless `override`.",
        parameters=(_PROVIDER,),
        body=_object(
            ("model",),
            model=_MODEL,
            num_ctx=_or_null({"type": "integer", "minimum": MIN_CONTEXT_LENGTH, "maximum": 2**31 - 1}),
            override={"type": "boolean"},
        ),
        is_body_needed=True,
        body_example={"model": "llama3.2:3b", "num_ctx": 8192},
        failures=(404, 409, 429, 501, 502, 503, 504),
    ),
    _post(
        "/unload",
        "Models",
        "Take a model, or all, out of memory.",
        {200: (_OK, form.UnloadDone)},
        parameters=(_PROVIDER,),
        body=_object(model=_or_null(_MODEL)),
        body_example={"model": "llama3.2:3b"},
        example={
            "ok": True,
            "action": "unload",
            "unloaded": [{"provider": "ollama", "model": "llama3.2:3b"}],
        },
        failures=(404, 501, 502, 504),
    ),
    _post(
        "/models/pull",
        "Models",
        "Download a model.",
        {
            202: ("It is queued; follow /downloads or /events.", form.PullDone),
            200: ("`wait`: it is on the disk.", form.PullDone),
        },
        parameters=(_PROVIDER,),
        body=_object(("model",), model=_MODEL, wait={"type": "boolean"}),
        is_body_needed=True,
        body_example={"model": "llama3.2:3b"},
        example={"ok": True, "action": "pull", "id": _DOWNLOAD["id"], "download": _DOWNLOAD},
        failures=(404, 409, 429, 501, 502, 504, 507),
    ),
    Op(
        method="delete",
        path="/models/{model}",
        tag="Models",
        summary="Delete a model from the disk; one in memory is unloaded first.",
        parameters=(_path("model", "llama3.2:3b", "Its name; slashes are fine.", _MODEL), _PROVIDER),
        answers={200: (_OK, form.DeleteDone)},
        example={"ok": True, "action": "delete", "model": "llama3.2:3b", "provider": "ollama"},
        failures=(404, 409, 501, 502, 503, 504),
    ),
    _get(
        "/downloads",
        "Models",
        "Downloads: under way, waiting, and the last that ended.",
        form.Downloads,
        {"downloads": [_DOWNLOAD]},
    ),
    Op(
        method="delete",
        path="/downloads/{id}",
        tag="Models",
        summary="Take a download back for good.",
        parameters=(_path("id", str(_DOWNLOAD["id"]), "Its id."),),
        answers={200: (_OK, form.CancelDone)},
        example={"ok": True, "action": "cancel", "download": {**_DOWNLOAD, "state": "cancelled"}},
        failures=(404, 409),
    ),
)
_SERVICE_EXAMPLE = {"provider": "ollama", "message": "It is being done.", "done": False}
_PROVIDERS: tuple[Op, ...] = (
    _get(
        "/providers",
        "Providers",
        "Every provider, with conditions and models.",
        form.Providers,
        {"providers": []},
    ),
    _post(
        "/providers/{id}/test",
        "Providers",
        "One live look at a provider. It starts nothing.",
        {200: ("It answers.", form.ProviderTested)},
        parameters=(_path("id", "ollama", "Its name."),),
        example={
            "ok": True,
            "provider": "ollama",
            "kind": "ollama",
            "url": "http://127.0.0.1:11434",
            "took_ms": 4.2,
            "version": "0.12.3",
            "models": ["llama3.2:3b"],
            "loaded": [],
        },
        failures=(404, 502, 504),
    ),
    *(
        _post(
            path,
            "Providers",
            summary,
            {200: ("Begun; how it went is in the activity.", form.ServiceDone)},
            parameters=(_PROVIDER,),
            body=_object(),
            example={"ok": True, "action": path[1:], **_SERVICE_EXAMPLE},
            failures=(404, 409, 429, 501, 502, 503, 504),
        )
        for path, summary in (
            ("/start", "Begin to start the server behind a provider."),
            ("/stop", "Begin to stop it."),
            ("/stop/force", "The same; its runners are killed first."),
            ("/restart", "Begin to stop it and start it again."),
        )
    ),
    _get(
        "/routes",
        "Routes",
        "The aliases, who would answer each now, and what a pause means for it.",
        form.Routes,
        {"routes": []},
    ),
    _post(
        "/routes/{alias}/test",
        "Routes",
        "Who would answer this alias now, and why; with `send`, who did.",
        {200: ("The answer.", form.RouteTested)},
        parameters=(_path("alias", "assistant", "Its name."),),
        body=_object(send={"type": "boolean"}),
        body_example={"send": True},
        failures=(404, 502, 504),
    ),
)
_SETTINGS: tuple[Op, ...] = (
    _get("/config", "Settings", "The thresholds.", form.Form, None),
    Op(
        method="put",
        path="/config",
        tag="Settings",
        summary="Change some thresholds; answers all. Nothing is stored if one is wrong.",
        body={
            "type": "object",
            "properties": {
                "ram_pause_pct": _PCT,
                "ram_resume_pct": _PCT,
                "gpu_vram_pause_pct": _PCT,
                "cpu_pause_pct": _PCT,
            },
        },
        body_example={"ram_pause_pct": 90, "ram_resume_pct": 70},
        answers={200: ("All thresholds.", form.Form)},
        failures=(409, 500, 504),
    ),
    _get(
        "/settings",
        "Settings",
        "Every section, keys hidden, with where each value comes from.",
        form.Form,
        None,
    ),
    Op(
        method="put",
        path="/settings",
        tag="Settings",
        summary="Change a part of the settings; answers all.",
        description="Any section but commands, which only the file says, and keys (PUT /secrets). null takes "
        'an entry out. With `If-Match: "VERSION"` only over that version (`meta.version`).',
        parameters=(
            {
                "name": "If-Match",
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
            },
        ),
        body={"type": "object"},
        body_example={"games": {"grace_seconds": 60}, "eviction": {"drain_seconds": 5}},
        answers={200: ("All settings.", form.Form)},
        failures=(409, 500, 504),
    ),
    Op(
        method="put",
        path="/secrets/{name}",
        tag="Settings",
        summary="Store a key. It is never given back.",
        parameters=(
            _path(
                "name",
                "openai",
                "Its name: keyring:NAME in the settings.",
                {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
            ),
        ),
        body=_object(("value",), value={"type": "string", "pattern": "^[!-~]{1,4096}$"}),
        is_body_needed=True,
        body_example={"value": "sk-your-key"},
        answers={200: (_OK, form.SecretKept)},
        example={"ok": True, "name": "openai", "reference": "keyring:openai"},
        failures=(500,),
    ),
    Op(
        method="delete",
        path="/secrets/{name}",
        tag="Settings",
        summary="Take a key away.",
        parameters=(
            _path(
                "name",
                "openai",
                "Its name.",
                {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
            ),
        ),
        answers={200: (_OK, form.SecretGone)},
        example={"ok": True, "name": "openai"},
        failures=(404, 500),
    ),
    _get(
        "/setup",
        "Set-up",
        "Whether there is something to set up. From this machine only.",
        form.SetupState,
        {"needs_setup": True, "api_key": None},
    ),
    _post(
        "/setup/acknowledge",
        "Set-up",
        "You have noted the key; it is not shown again. From this machine only.",
        {200: (_OK, form.Done)},
        body=_object(),
        example={"ok": True, "action": "setup/acknowledge"},
        failures=(409, 500, 504),
    ),
    _post(
        "/setup/apply",
        "Set-up",
        "Listen at another address from now on, without a restart. From this machine only.",
        {200: ("It listens there.", form.ApplyDone)},
        description="For other machines a key is needed: where there is none it is made and 409 is answered; "
        "read it with GET /setup, acknowledge it, and apply again. If anything fails the old address stays.",
        body=_object(
            host=_or_null({"type": "string", "minLength": 1, "maxLength": 253}),
            port=_or_null({"type": "integer", "minimum": 0, "maximum": 65535}),
        ),
        is_body_needed=True,
        body_example={"host": "127.0.0.1", "port": 8765},
        example={
            "ok": True,
            "action": "setup/apply",
            "url": "http://127.0.0.1:8765",
            "host": "127.0.0.1",
            "port": 8765,
        },
        failures=(409, 500, 504),
    ),
)
_PROGRAM: tuple[Op, ...] = (
    _post(
        "/open",
        "Program",
        "Open the window, or bring it to the front.",
        {200: (_OK, form.OpenDone)},
        body=_object(),
        example={"ok": True, "action": "open", "way": "browser", "url": "http://127.0.0.1:8765/ui/"},
        failures=(500, 501),
    ),
    _post(
        "/quit",
        "Program",
        "Begin the orderly end.",
        {202: ("It has begun.", form.Done)},
        body=_object(),
        example={"ok": True, "action": "quit"},
    ),
    _post(
        "/ui/session",
        "Program",
        "The window buys its key for a one-time code.",
        {200: (_OK, form.Session)},
        body=_object(("code",), code={"type": "string"}),
        is_body_needed=True,
        body_example={"code": "…"},
        example={"token": "…"},
        failures=(404, 429),
    ),
    Op(
        method="get",
        path="/openapi.json",
        tag="Program",
        summary="This description.",
        answers={200: ("OpenAPI 3.1.", form.Form)},
    ),
    Op(
        method="get",
        path="/docs",
        tag="Program",
        summary="The same for people.",
        answers={200: ("A page.", None)},
        kind=HTML,
        example="<!doctype html>",
    ),
    Op(
        method="get",
        path="/ui/",
        tag="Program",
        summary="The window's page.",
        answers={200: ("A page.", None)},
        kind=HTML,
        example="<!doctype html>",
    ),
)
OPERATIONS: tuple[Op, ...] = (*_LOOK, *_HOLDS, *_MODELS, *_PROVIDERS, *_SETTINGS, *_PROGRAM)
