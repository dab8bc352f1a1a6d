"""Models, downloads, providers and routes: their operations.

Decides: what each takes and may answer. Must not: know how a description is built.
"""

from __future__ import annotations

from tray_valet.core.models import MIN_CONTEXT_LENGTH
from tray_valet.web.control.openapi import lists as lists
from tray_valet.web.control.openapi import outcomes as outcome
from tray_valet.web.control.openapi.operation import (
    DOWNLOAD,
    MODEL,
    OK,
    PROVIDER,
    Op,
    a_get,
    a_post,
    an_object,
    in_path,
    or_null,
)

MODELS: tuple[Op, ...] = (
    a_get(
        "/models",
        "Models",
        "What could be loaded, over all providers that answer.",
        lists.Models,
        {"models": []},
    ),
    a_post(
        "/load",
        "Models",
        "Load a model and wait until it is ready.",
        {200: ("It is ready.", outcome.LoadDone)},
        description="During a game 409 with the reason, unless `override`.",
        parameters=(PROVIDER,),
        body=an_object(
            ("model",),
            model=MODEL,
            num_ctx=or_null({"type": "integer", "minimum": MIN_CONTEXT_LENGTH, "maximum": 2**31 - 1}),
            override={"type": "boolean"},
        ),
        is_body_needed=True,
        body_example={"model": "llama3.2:3b", "num_ctx": 8192},
        failures=(404, 409, 429, 501, 502, 503, 504),
    ),
    a_post(
        "/unload",
        "Models",
        "Take a model, or all, out of memory.",
        {200: (OK, outcome.UnloadDone)},
        parameters=(PROVIDER,),
        body=an_object(model=or_null(MODEL)),
        body_example={"model": "llama3.2:3b"},
        example={
            "ok": True,
            "action": "unload",
            "unloaded": [{"provider": "ollama", "model": "llama3.2:3b"}],
        },
        failures=(404, 501, 502, 504),
    ),
    a_post(
        "/models/pull",
        "Models",
        "Download a model.",
        {
            202: ("It is queued; follow /downloads or /events.", outcome.PullDone),
            200: ("`wait`: it is on the disk.", outcome.PullDone),
        },
        parameters=(PROVIDER,),
        body=an_object(("model",), model=MODEL, wait={"type": "boolean"}),
        is_body_needed=True,
        body_example={"model": "llama3.2:3b"},
        example={"ok": True, "action": "pull", "id": DOWNLOAD["id"], "download": DOWNLOAD},
        failures=(404, 409, 429, 501, 502, 504, 507),
    ),
    Op(
        method="delete",
        path="/models/{model}",
        tag="Models",
        summary="Delete a model from the disk; one in memory is unloaded first.",
        parameters=(in_path("model", "llama3.2:3b", "Its name; slashes are fine.", MODEL), PROVIDER),
        answers={200: (OK, outcome.DeleteDone)},
        example={"ok": True, "action": "delete", "model": "llama3.2:3b", "provider": "ollama"},
        failures=(404, 409, 501, 502, 503, 504),
    ),
    a_get(
        "/downloads",
        "Models",
        "Downloads: under way, waiting, and the last that ended.",
        outcome.Downloads,
        {"downloads": [DOWNLOAD]},
    ),
    Op(
        method="delete",
        path="/downloads/{id}",
        tag="Models",
        summary="Take a download back for good.",
        parameters=(in_path("id", str(DOWNLOAD["id"]), "Its id."),),
        answers={200: (OK, outcome.CancelDone)},
        example={"ok": True, "action": "cancel", "download": {**DOWNLOAD, "state": "cancelled"}},
        failures=(404, 409),
    ),
)
_SERVICE_EXAMPLE = {"provider": "ollama", "message": "It is being done.", "done": False}
PROVIDERS: tuple[Op, ...] = (
    a_get(
        "/providers",
        "Providers",
        "Every provider, with conditions and models.",
        lists.Providers,
        {"providers": []},
    ),
    a_post(
        "/providers/{id}/test",
        "Providers",
        "One live look at a provider. It starts nothing.",
        {200: ("It answers.", outcome.ProviderTested)},
        parameters=(in_path("id", "ollama", "Its name."),),
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
        a_post(
            path,
            "Providers",
            summary,
            {200: ("Begun; how it went is in the activity.", outcome.ServiceDone)},
            parameters=(PROVIDER,),
            body=an_object(),
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
    a_get(
        "/routes",
        "Routes",
        "The aliases, who would answer each now, and what a pause means for it.",
        outcome.Routes,
        {"routes": []},
    ),
    a_post(
        "/routes/{alias}/test",
        "Routes",
        "Who would answer this alias now, and why; with `send`, who did.",
        {200: ("The answer.", outcome.RouteTested)},
        parameters=(in_path("alias", "assistant", "Its name."),),
        body=an_object(send={"type": "boolean"}),
        body_example={"send": True},
        failures=(404, 502, 504),
    ),
)
