"""Settings, set-up and the program itself: their operations.

Decides: what each takes and may answer. Must not: know how a description is built.
"""

from __future__ import annotations

from tray_valet.web.control.openapi import forms as form
from tray_valet.web.control.openapi import outcomes as outcome
from tray_valet.web.control.openapi.operation import (
    HTML,
    OK,
    PCT,
    Op,
    a_get,
    a_post,
    an_object,
    in_path,
    or_null,
)

SETTINGS: tuple[Op, ...] = (
    a_get("/config", "Settings", "The thresholds.", form.Form, None),
    Op(
        method="put",
        path="/config",
        tag="Settings",
        summary="Change some thresholds; answers all. Nothing is stored if one is wrong.",
        body={
            "type": "object",
            "properties": {
                "ram_pause_pct": PCT,
                "ram_resume_pct": PCT,
                "gpu_vram_pause_pct": PCT,
                "cpu_pause_pct": PCT,
            },
        },
        body_example={"ram_pause_pct": 90, "ram_resume_pct": 70},
        answers={200: ("All thresholds.", form.Form)},
        failures=(409, 500, 504),
    ),
    a_get(
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
            in_path(
                "name",
                "openai",
                "Its name: keyring:NAME in the settings.",
                {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
            ),
        ),
        body=an_object(("value",), value={"type": "string", "pattern": "^[!-~]{1,4096}$"}),
        is_body_needed=True,
        body_example={"value": "sk-your-key"},
        answers={200: (OK, outcome.SecretKept)},
        example={"ok": True, "name": "openai", "reference": "keyring:openai"},
        failures=(500,),
    ),
    Op(
        method="delete",
        path="/secrets/{name}",
        tag="Settings",
        summary="Take a key away.",
        parameters=(
            in_path(
                "name",
                "openai",
                "Its name.",
                {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
            ),
        ),
        answers={200: (OK, outcome.SecretGone)},
        example={"ok": True, "name": "openai"},
        failures=(404, 500),
    ),
    a_get(
        "/setup",
        "Set-up",
        "Whether the first set-up is still to be acknowledged, and the key to note. From this machine only.",
        outcome.SetupState,
        {"needs_setup": True, "api_key": None},
    ),
    a_post(
        "/setup/acknowledge",
        "Set-up",
        "You have noted the key; it is not shown again. From this machine only.",
        {200: (OK, outcome.Done)},
        body=an_object(),
        example={"ok": True, "action": "setup/acknowledge"},
        failures=(409, 500, 504),
    ),
    a_post(
        "/setup/apply",
        "Set-up",
        "Listen at another address from now on, without a restart. From this machine only.",
        {200: ("It listens there.", outcome.ApplyDone)},
        description="For other machines a key is needed: where there is none it is made and 409 is answered; "
        "read it with GET /setup, acknowledge it, and apply again. If anything fails the old address stays.",
        body=an_object(
            host=or_null({"type": "string", "minLength": 1, "maxLength": 253}),
            port=or_null({"type": "integer", "minimum": 0, "maximum": 65535}),
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
PROGRAM: tuple[Op, ...] = (
    a_post(
        "/open",
        "Program",
        "Open the window, or bring it to the front.",
        {200: (OK, outcome.OpenDone)},
        body=an_object(),
        example={"ok": True, "action": "open", "way": "browser", "url": "http://127.0.0.1:8765/ui/"},
        failures=(500, 501),
    ),
    a_post(
        "/quit",
        "Program",
        "Begin the orderly end.",
        {202: ("It has begun.", outcome.Done)},
        body=an_object(),
        example={"ok": True, "action": "quit"},
    ),
    a_post(
        "/ui/session",
        "Program",
        "The window buys its key for a one-time code.",
        {200: (OK, outcome.Session)},
        body=an_object(("code",), code={"type": "string"}),
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
