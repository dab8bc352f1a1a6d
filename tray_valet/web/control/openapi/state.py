"""What is, games and pauses: their operations.

Decides: what each takes and may answer. Must not: know how a description is built.
"""

from __future__ import annotations

from tray_valet.web.control.openapi import forms as form
from tray_valet.web.control.openapi import lists as lists
from tray_valet.web.control.openapi import outcomes as outcome
from tray_valet.web.control.openapi.operation import (
    GAME,
    HOLD,
    MODEL,
    OK,
    PID,
    SECONDS,
    SSE,
    TEXT,
    Op,
    a_get,
    a_post,
    an_object,
    in_path,
    in_query,
    or_null,
)

LOOK: tuple[Op, ...] = (
    a_get(
        "/",
        "State",
        "Who answers here.",
        form.Root,
        {"name": "Tray Valet", "version": "1.0.0", "status": "/status"},
        description="Who asks for text/html is led to the window's page at /ui/ (307).",
    ),
    a_get("/status", "State", "Everything at one moment, from the last sample.", form.Status, None),
    a_get("/watchdog", "State", "The state and its last reason.", form.Watchdog, None),
    a_get("/metrics", "State", "A live sample of the machine.", form.Metrics, None),
    a_get("/explain", "State", "Why it is as it is: every signal, hold and game.", lists.Explain, None),
    a_get(
        "/memory",
        "State",
        "Who has the memory, as bars.",
        lists.MemoryBars,
        {"vram": None, "ram": None, "gpu_names": []},
    ),
    a_get(
        "/history",
        "State",
        "How full the machine was.",
        lists.History,
        {"minutes": 60, "interval_seconds": 60.0, "samples": []},
        parameters=(in_query("minutes", "How long.", {"type": "integer", "minimum": 1, "maximum": 1440}),),
    ),
    a_get(
        "/activity",
        "State",
        "What happened, newest first.",
        lists.Activity,
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
        parameters=(in_query("limit", "How many.", {"type": "integer", "minimum": 1, "maximum": 1000}),),
    ),
    a_get(
        "/logs",
        "State",
        "The end of the valet's own log, or what a model's runner wrote last.",
        lists.Logs,
        {"runner": None, "lines": ['{"message": "Tray Valet started."}']},
        parameters=(
            in_query("runner", "A model's name.", {**MODEL, "pattern": r"^[A-Za-z0-9._:/@-]{0,300}$"}),
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
    a_get(
        "/games",
        "Games",
        "The games that are known and those that run.",
        lists.Games,
        {"known": [], "running": []},
    ),
    Op(
        method="put",
        path="/games/{id}",
        tag="Games",
        summary="Whether the models step aside for a game; kept as a rule of the settings.",
        parameters=(in_path("id", GAME, "Its key, its store's id, or its name."),),
        body=an_object(("action",), action={"type": "string", "enum": ["on", "off", "ask"]}),
        is_body_needed=True,
        body_example={"action": "off"},
        answers={200: (OK, outcome.GameChosen)},
        example={"ok": True, "key": GAME, "name": "Hades", "action": "off"},
        failures=(404, 409, 500, 504),
    ),
    a_get(
        "/ledger",
        "Games",
        "How often the models stepped aside, and how long that took.",
        lists.Ledger,
        {"games": [], "times": 0, "freed_mb": 0},
    ),
    Op(
        method="delete",
        path="/ledger",
        tag="Games",
        summary="Forget one game's record, or all.",
        parameters=(in_query("game", "Its key or name.", {"type": "string", "minLength": 1}),),
        answers={200: (OK, outcome.Forgotten)},
        example={"forgotten": 1},
        failures=(404,),
    ),
)
HOLDS: tuple[Op, ...] = (
    *(
        a_post(
            path,
            "Pause",
            summary,
            {
                200: ("Paused: the models are gone.", outcome.PauseDone),
                202: ("Begun; it takes longer.", outcome.PauseDone),
            },
            body=an_object(
                reason=or_null(TEXT),
                for_seconds=or_null(SECONDS),
                pid=or_null(PID),
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
    a_post(
        "/resume",
        "Pause",
        "Bring the models back, in spite of a game that runs.",
        {200: ("Running.", outcome.PauseDone), 202: ("Begun; it takes longer.", outcome.PauseDone)},
        body=an_object(),
        failures=(429,),
    ),
    a_get("/holds", "Pause", "The active reasons to stay paused.", form.Holds, {"holds": []}),
    a_post(
        "/holds",
        "Pause",
        "A program asks the models to step aside.",
        {201: ("It is in effect.", outcome.HoldPlaced)},
        body=an_object(
            ("owner",),
            owner={"type": "string", "minLength": 1, "maxLength": 100},
            reason=or_null(TEXT),
            ttl_seconds=or_null(SECONDS),
            pid=or_null(PID),
        ),
        is_body_needed=True,
        body_example={"owner": "blender", "reason": "rendering", "ttl_seconds": 600},
        example={"id": HOLD, "state": "paused"},
    ),
    Op(
        method="delete",
        path="/holds/{id}",
        tag="Pause",
        summary="The program no longer needs it.",
        parameters=(in_path("id", HOLD, "What POST /holds answered."),),
        answers={200: (OK, outcome.HoldEnded)},
        example={"ok": True, "id": HOLD, "state": "resuming"},
        failures=(404, 409),
    ),
)
