import json
from typing import Any

import pytest

from tray_valet.commands import showing

LOADED = {
    "provider": "local",
    "name": "qwen-7b",
    "size_mb": 5120,
    "vram_mb": 4096,
    "context_length": 8192,
    "ttl_left_seconds": 250.0,
}
GAME = {
    "key": "steam:1145360",
    "name": "Hades",
    "store": "steam",
    "appid": "1145360",
    "rule": "steam library",
    "action": "on",
    "pids": [4],
    "since": 1_700_000_000.0,
    "overridden": False,
    "ending": False,
}
WATCHDOG = {
    "state": "running",
    "title": "Running",
    "line": "1 model loaded, 5.0\u00a0GB. No game is running.",
}
METRICS = {
    "memory": {"total_mb": 32768, "used_mb": 15000, "used_pct": 46.4, "pressure": "normal"},
    "cpu": {"used_pct": 3.0, "core_count": 16},
    "gpu": {"available": True, "vram_total_mb": 24576, "vram_used_mb": 5000, "vram_used_pct": 20.3},
    "disk": {},
    "timestamp": 1.0,
}
STATUS: dict[str, Any] = {
    "watchdog": WATCHDOG,
    "metrics": METRICS,
    "models": [LOADED],
    "to_bring_back": [],
    "games": [],
    "settings_problem": None,
    "builtin_demo": False,
    "router_url": "http://127.0.0.1:8766",
}


def test_status_begins_with_what_why_and_what_next() -> None:
    lines = showing.status_text(STATUS).splitlines()
    assert lines[:2] == ["Running", "1 model loaded, 5.0 GB. No game is running."]


def test_status_shows_models_machine_and_the_address_for_programs() -> None:
    text = showing.status_text(STATUS)
    assert "qwen-7b" in text
    assert "RAM   46.4% of 32.0 GB" in text
    assert "CPU   3.0% of 16 cores" in text
    assert "VRAM  20.3% of 24.0 GB" in text
    assert "http://127.0.0.1:8766" in text


def test_status_of_an_idle_machine_without_a_gpu_has_no_empty_parts() -> None:
    metrics = {**METRICS, "gpu": {"available": False}}
    text = showing.status_text({**STATUS, "models": [], "metrics": metrics, "router_url": None})
    assert "VRAM" not in text
    assert "MODEL" not in text
    assert "\n\n\n" not in text


def test_status_says_when_the_built_in_model_serves() -> None:
    assert "built-in demo model" in showing.status_text({**STATUS, "builtin_demo": True})


def test_status_says_when_the_settings_are_broken() -> None:
    text = showing.status_text({**STATUS, "settings_problem": "Line 3, control.port: …"})
    assert "The settings file has a mistake" in text
    assert "Line 3, control.port" in text


def test_status_before_the_first_measurement_shows_no_figures() -> None:
    nothing = {"memory": {"total_mb": None, "used_pct": None}, "cpu": {"used_pct": None, "core_count": None},
               "gpu": {"available": False}}  # fmt: skip
    assert "None" not in showing.status_text({**STATUS, "metrics": nothing})


def test_ps_shows_what_is_loaded_and_what_waits() -> None:
    text = showing.ps_text({"models": [LOADED], "to_bring_back": [{**LOADED, "name": "other"}]})
    row = next(line for line in text.splitlines() if line.startswith("qwen-7b"))
    assert row.split() == ["qwen-7b", "local", "5.0", "GB", "4.0", "GB", "8192", "4", "min"]
    assert "Set aside, to be brought back:" in text
    assert "other" in text


def test_ps_with_nothing_loaded_says_so() -> None:
    assert showing.ps_text({"models": [], "to_bring_back": []}) == "No model is loaded."


def test_models_tells_which_are_loaded() -> None:
    models = [
        {
            "name": "a",
            "provider": "p",
            "size_mb": 400,
            "context_length": None,
            "loaded": True,
            "loading": False,
        },
        {
            "name": "b",
            "provider": "p",
            "size_mb": 0,
            "context_length": 4096,
            "loaded": False,
            "loading": True,
        },
        {"name": "c", "provider": "p", "size_mb": 1, "context_length": 1, "loaded": False, "loading": False},
    ]
    lines = showing.models_text({"models": models}).splitlines()
    assert [line.split()[-1] for line in lines] == ["NOW", "loaded", "loading", "-"]


def test_games_tells_what_each_running_one_means_for_the_models() -> None:
    running = [GAME, {**GAME, "name": "Tetris", "overridden": True}, {**GAME, "name": "Doom", "ending": True},
               {**GAME, "name": "Chess", "action": "off"}]  # fmt: skip
    text = showing.games_text({"known": [], "running": running})
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert "models step aside" in rows["Hades"]
    assert "models kept running" in rows["Tetris"]
    assert "has ended" in rows["Doom"]
    assert "models kept running" in rows["Chess"]


def test_games_lists_the_known_ones() -> None:
    known = {"name": "Hades", "store": "steam", "appid": "1145360", "action": "on", "path": "/g/Hades"}
    text = showing.games_text({"known": [known], "running": []})
    assert "No game is running." in text
    assert "1145360" in text


def test_activity_marks_problems_and_hides_control_characters() -> None:
    entries = [
        {"id": 2, "at": 1_700_000_000.0, "kind": "x", "text": "bad\x1b[2J", "problem": True},
        {"id": 1, "at": 1_700_000_000.0, "kind": "x", "text": "fine", "problem": False},
    ]
    first, second = showing.activity_text({"activity": entries}).splitlines()
    assert first.endswith("! bad [2J")
    assert second.endswith("  fine")


def test_explain_shows_every_signal_with_raw_ours_and_others() -> None:
    signal = {"signal": "ram", "gpu": "", "raw_pct": 87.3, "ours_pct": 20.0, "others_pct": 67.3,
              "pause_pct": 85.0, "resume_pct": 60.0, "why": "others have grown", "counts": True}  # fmt: skip
    hold = {"id": "1", "kind": "ram", "owner": "valet", "reason": "RAM 87.3% >= 85.0% threshold",
            "since": 1_700_000_000.0, "overridden": True, "expires_in_seconds": None}  # fmt: skip
    answer = {**WATCHDOG, "signals": [signal], "holds": [hold], "process_source": "proc connector",
              "conditions": [{"provider": "ollama", "status": True, "reason": "It does not answer."}],
              "gpu_missing_because": "no NVIDIA driver"}  # fmt: skip
    text = showing.explain_text(answer)
    for part in ("RAM", "87.3%", "20.0%", "67.3%", "85.0%", "60.0%", "others have grown"):
        assert part in text
    assert "no, you chose to keep running" in text
    assert "ollama: It does not answer." in text
    assert "proc connector" in text


def test_providers_shows_conditions_below_the_table() -> None:
    condition = {"type": "unreachable", "status": True, "reason": "Nothing answers.", "since": 1.0}
    gone = {**condition, "status": False, "reason": "Long over."}
    provider = {"name": "ollama", "kind": "ollama", "url": "http://127.0.0.1:11434", "state": "unreachable",
                "conditions": [condition, gone], "loaded": []}  # fmt: skip
    text = showing.providers_text({"providers": [provider]})
    assert "0 models" in text
    assert "ollama: Nothing answers." in text
    assert "Long over." not in text


@pytest.mark.parametrize(
    ("show", "path"),
    [
        (showing.status, "/status"),
        (showing.models, "/models"),
        (showing.games, "/games"),
        (showing.explain, "/explain"),
        (showing.providers, "/providers"),
    ],
)
def test_json_is_the_apis_own(
    control_api: Any, told: Any, capsys: pytest.CaptureFixture[str], show: Any, path: str
) -> None:
    control_api.answers[f"GET {path}"] = told(200, {"some": ["thing", "ü"]})
    show(control_api.client(), is_json=True)
    assert json.loads(capsys.readouterr().out) == {"some": ["thing", "ü"]}


def test_activity_can_be_cut_to_the_newest(
    control_api: Any, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    control_api.answers["GET /activity"] = told(200, {"activity": [{"id": 3}, {"id": 2}]})
    showing.activity(control_api.client(), limit=2, is_json=True)
    assert json.loads(capsys.readouterr().out) == {"activity": [{"id": 3}, {"id": 2}]}
    showing.activity(control_api.client(), limit=10**9, is_json=True)
    asked = [request.path for request in control_api.asked]
    assert asked == ["/activity?limit=2", "/activity?limit=1000"]
