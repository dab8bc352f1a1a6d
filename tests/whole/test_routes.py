"""`GET /routes` and `tray-valet routes`: they say what a request would really meet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.valet_process import ValetProcess, until

ALIASES = ("falls-back", "waits", "refuses", "dead", "elsewhere", "gone")


@pytest.fixture(scope="module")
def cloud() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "remote:latest=8") as standin:
        yield standin


@pytest.fixture(scope="module")
def valet(tmp_path_factory: pytest.TempPathFactory, cloud: OllamaStandin) -> Iterator[ValetProcess]:
    home = tmp_path_factory.mktemp("routes") / "home"
    with OllamaStandin("--model", "big:latest=8") as ollama, OllamaStandin("--model", "x:latest=8") as dying:
        here = {"provider": "ollama", "model": "big"}
        there = {"provider": "cloud", "model": "remote:latest", "set": {"temperature": 0}, "strip": ["seed"]}
        settings: dict[str, Any] = {
            "games": {"enabled": False},
            "providers": {
                "ollama": {"kind": "ollama", "url": ollama.url},
                "cloud": {"kind": "openai", "url": f"{cloud.url}/v1", "local": False},
                "down": {"kind": "ollama", "url": dying.url},
            },
            "routes": {
                "falls-back": {"candidates": [here, there], "num_ctx": 2048, "keep_alive": "10m"},
                "waits": {"candidates": [here], "when_paused": "wait", "wait_seconds": 7, "priority": "high"},
                "refuses": {"candidates": [here, there], "when_paused": "refuse"},
                "dead": {"candidates": [{"provider": "ollama", "model": "nobody"}]},
                "elsewhere": {"candidates": [there]},
                "gone": {"candidates": [{"provider": "down", "model": "x"}]},
            },
        }
        with ValetProcess(home, settings) as process:
            dying.kill()
            until(
                lambda: _state_of(process, "down") == "unreachable",
                "the third provider is down",
                patience_s=40,
            )
            yield process


def _state_of(valet: ValetProcess, name: str) -> str:
    return next(str(p["state"]) for p in valet.get("/providers")["providers"] if p["name"] == name)


def routes(valet: ValetProcess) -> dict[str, Any]:
    return {route["alias"]: route for route in valet.get("/routes")["routes"]}


def test_every_alias_is_told_with_its_settings(valet: ValetProcess) -> None:
    told = routes(valet)
    assert tuple(told) == ALIASES
    route = told["falls-back"]
    assert (route["when_paused"], route["num_ctx"], route["keep_alive"]) == ("next", 2048, "10m")
    assert (told["waits"]["wait_seconds"], told["waits"]["priority"]) == (7.0, "high")
    first, second = route["candidates"]
    assert (first["provider"], first["model"], first["provider_state"]) == ("ollama", "big:latest", "ready")
    assert (second["local"], second["set"], second["strip"]) == (False, ["temperature"], ["seed"])
    assert valet.get("/routes")["default"] == {"when_paused": "refuse"}


def test_while_nothing_is_paused_the_first_candidate_is_told(valet: ValetProcess) -> None:
    told = routes(valet)
    assert told["falls-back"]["now"]["outcome"] == "admits"
    assert told["falls-back"]["now"]["model"] == "big:latest"
    assert told["dead"]["now"]["outcome"] == "refuses"
    assert told["dead"]["candidates"][0]["exists"] is False
    assert (told["gone"]["now"]["outcome"], told["gone"]["now"]["why"]) == (
        "refuses",
        "down does not answer.",
    )


def test_looking_loads_nothing(valet: ValetProcess) -> None:
    routes(valet)
    assert valet.loaded() == {}


def test_during_a_pause_it_says_what_a_request_then_meets(valet: ValetProcess) -> None:
    hold = valet.post("/holds", {"owner": "a film"}, status=201)["id"]
    try:
        told = routes(valet)
        assert {alias: told[alias]["now"]["outcome"] for alias in ALIASES[:3]} == {
            "falls-back": "admits",
            "waits": "waits",
            "refuses": "refuses",
        }
        assert told["falls-back"]["now"]["provider"] == "cloud"
        assert "paused" in told["falls-back"]["now"]["why"]
        assert told["falls-back"]["candidates"][0]["standing"] == "closed"
        assert "7 s" in told["waits"]["now"]["why"].replace("\u00a0", " ")
        answer = valet.chat("falls-back")
        assert (answer.status_code, answer.headers["x-valet-provider"]) == (200, "cloud")
        refusal = valet.chat("refuses")
        assert refusal.status_code == 503
        assert refusal.json()["error"]["message"].startswith(told["refuses"]["now"]["why"][:30])
    finally:
        valet.control.delete(f"/holds/{hold}")
        valet.wait_state("running")


def test_the_command_says_it_in_words_and_in_json(valet: ValetProcess) -> None:
    def run(*words: str) -> str:
        argv = [sys.executable, "-m", "tray_valet", "routes", *words]
        done = subprocess.run(
            argv, env=valet.environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    words = run()
    assert "falls-back  (during a pause: next, context 2048, kept 10m)" in words
    assert "waits  (during a pause: wait up to 7 s, priority high)" in words
    assert "ollama/nobody" in words
    assert "does not exist" in words
    assert json.loads(run("--json"))["routes"] == valet.get("/routes")["routes"]


def test_without_aliases_it_says_how_to_make_one(tmp_path: Path) -> None:
    from tray_valet.commands.routes import routes_text

    assert "There are no aliases" in routes_text({"routes": [], "default": {"when_paused": "refuse"}})
