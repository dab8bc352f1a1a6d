"""The control API on a whole valet: downloads over a kill, deletions, a live move, keys."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import quiet_port
from tests.standins.ollama import OllamaStandin
from tests.whole.valet_process import PATIENCE_S, ValetProcess


@pytest.fixture(scope="module")
def ollama() -> Iterator[OllamaStandin]:
    with OllamaStandin() as standin:
        yield standin


@pytest.fixture
def valet(tmp_path: Path, ollama: OllamaStandin) -> Iterator[ValetProcess]:
    ollama.reset()
    with ValetProcess(tmp_path / "home", settings(ollama)) as process:
        yield process


def settings(ollama: OllamaStandin) -> dict[str, Any]:
    one = {"provider": "ollama", "model": "llama3"}
    return {
        "providers": {"ollama": {"kind": "ollama", "url": ollama.url}},
        "routes": {"assistant": {"candidates": [one]}},
    }


def until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s, "it did not come true in time"
        time.sleep(0.05)


def downloads(valet: ValetProcess) -> dict[str, dict[str, Any]]:
    return {d["model"]: d for d in valet.control.get("/downloads").json()["downloads"]}


def call(valet: ValetProcess, method: str, path: str, body: Any = None) -> httpx.Response:
    return valet.control.request(method, path, json=body, timeout=60)


def test_a_download_survives_kill_9(valet: ValetProcess, ollama: OllamaStandin) -> None:
    ollama.set(pull_s=4.0)
    begun = call(valet, "POST", "/models/pull", {"model": "big"})
    assert begun.status_code == 202
    until(lambda: downloads(valet)["big:latest"]["completed_bytes"] > 0)
    valet.kill()
    ollama.set(pull_s=0.2)
    valet.start()
    until(lambda: downloads(valet)["big:latest"]["state"] == "done")
    assert downloads(valet)["big:latest"]["id"] == begun.json()["id"]
    assert "big:latest" in {model["name"] for model in call(valet, "GET", "/models").json()["models"]}


def test_c8_a_cancelled_download_stays_cancelled_over_a_restart(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.set(pull_s=10.0)
    begun = call(valet, "POST", "/models/pull", {"model": "gone"}).json()["id"]
    until(lambda: len(ollama.calls("/api/pull")) == 1)
    assert call(valet, "DELETE", f"/downloads/{begun}").status_code == 200
    valet.kill()
    valet.start()
    assert downloads(valet)["gone:latest"]["state"] == "cancelled"
    call(valet, "POST", "/models/pull", {"model": "another"})  # what is queued begins
    until(lambda: len(ollama.calls("/api/pull")) == 2)
    assert [each["body"]["model"] for each in ollama.calls("/api/pull")] == ["gone:latest", "another:latest"]


def test_c9_progress_comes_with_the_events_and_in_the_first_snapshot(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.set(pull_s=6.0)
    call(valet, "POST", "/models/pull", {"model": "seen"})
    seen: list[tuple[str, Any]] = []
    with valet.control.stream("GET", "/events", timeout=PATIENCE_S) as answer:
        kind = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                seen.append((kind, json.loads(line.removeprefix("data: "))))
                if kind == "download_finished":
                    break
    first_kind, first = seen[0]
    assert (first_kind, [d["model"] for d in first["downloads"]]) == ("snapshot", ["seen:latest"])
    told = [data["fact"]["download"]["completed_bytes"] for kind, data in seen if kind == "download_progress"]
    assert told == sorted(told)
    assert len(told) >= 2


def test_downloads_wait_during_a_game(valet: ValetProcess, ollama: OllamaStandin) -> None:
    ollama.set(pull_s=40.0)
    call(valet, "POST", "/models/pull", {"model": "later"})
    until(lambda: downloads(valet)["later:latest"]["state"] == "running")
    game = valet.play()
    until(lambda: downloads(valet)["later:latest"]["state"] == "paused")
    ollama.set(pull_s=0.5)
    valet.stop(game)
    until(lambda: downloads(valet)["later:latest"]["state"] == "done")


def test_a_loaded_model_is_unloaded_and_deleted(valet: ValetProcess, ollama: OllamaStandin) -> None:
    assert call(valet, "POST", "/load", {"model": "llama3"}).status_code == 200
    assert call(valet, "DELETE", "/models/llama3").status_code == 200
    assert ollama.loaded() == {}
    assert "llama3:latest" not in {m["name"] for m in call(valet, "GET", "/models").json()["models"]}
    assert call(valet, "GET", "/status").json()["to_bring_back"] == []
    assert call(valet, "DELETE", "/models/llama3").status_code == 404


def test_the_control_api_moves_live_and_back(valet: ValetProcess) -> None:
    old = str(valet.control.base_url).rstrip("/")
    port = quiet_port()
    applied = call(valet, "POST", "/setup/apply", {"port": port})
    assert (applied.status_code, applied.json()["url"]) == (200, f"http://127.0.0.1:{port}")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{old}/status", trust_env=False)
    new = httpx.Client(base_url=applied.json()["url"], trust_env=False, timeout=60)
    assert new.get("/status").json()["control_url"] == applied.json()["url"]
    assert json.loads((valet.home / "state" / "runtime.json").read_text())["control"]["port"] == port
    assert new.get("/settings").json()["control"]["port"] == port
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    refused = new.post("/setup/apply", json={"port": taken.getsockname()[1]})
    taken.close()
    assert refused.status_code == 409
    assert new.get("/settings").json()["control"]["port"] == port
    kinds = {entry["kind"] for entry in new.get("/activity").json()["activity"]}
    assert "restart_needed" not in kinds


def test_other_machines_are_let_in_with_a_key_that_was_made_and_noted(valet: ValetProcess) -> None:
    wish = {"host": "0.0.0.0"}
    before = (valet.home / "config.yaml").read_bytes()
    refused = call(valet, "POST", "/setup/apply", wish)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "key_not_acknowledged")
    assert (valet.home / "config.yaml").read_bytes() == before
    key = call(valet, "GET", "/setup").json()["api_key"]
    assert len(key) >= 32
    assert call(valet, "POST", "/setup/acknowledge").status_code == 200
    assert call(valet, "GET", "/setup").json() == {"needs_setup": False, "api_key": None}
    assert call(valet, "POST", "/setup/apply", wish).status_code == 200
    made = call(valet, "PUT", "/secrets/control", {"value": "my-own-key-4711"})
    assert made.status_code == 200
    assert key not in (valet.home / "config.yaml").read_text()
    assert (valet.home / "state" / "secrets.json").stat().st_mode & 0o077 == 0
    until(lambda: call(valet, "GET", "/status").json()["security"]["lan_exposed"])


def test_a_route_is_tested_by_a_real_request(valet: ValetProcess, ollama: OllamaStandin) -> None:
    looked = call(valet, "POST", "/routes/assistant/test").json()
    assert (looked["now"]["provider"], looked["sent"]) == ("ollama", None)
    assert not ollama.calls("/v1/chat/completions")
    sent = call(valet, "POST", "/routes/assistant/test", {"send": True})
    assert (sent.status_code, sent.json()["sent"]["provider"]) == (200, "ollama")
    call(valet, "POST", "/pause")
    paused = call(valet, "POST", "/routes/assistant/test", {"send": True})
    assert paused.status_code == 502
    assert "503" in paused.json()["error"]["message"]
    assert call(valet, "POST", "/routes/nobody/test").status_code == 404
    nobodys = call(valet, "GET", "/logs?runner=nobody")
    assert (nobodys.status_code, nobodys.json()["error"]["param"]) == (404, "runner")


def test_the_status_and_the_log_tell_of_a_model_that_takes_too_much(
    tmp_path: Path, ollama: OllamaStandin
) -> None:
    ollama.reset()
    ollama.load("llama3")
    tiny = {"thresholds": {"ram_pause_pct": 0.002, "ram_resume_pct": 0.001}}
    with ValetProcess(tmp_path / "home", {**settings(ollama), **tiny}) as valet:
        assert call(valet, "GET", "/status").json()["provider"]["overcommit"] is True
        log = (valet.home / "logs" / "tray-valet.log").read_text()
        [line] = [json.loads(each) for each in log.splitlines() if '"overcommitted"' in each]
        assert (line["level"], line["fact"]) == ("warning", "overcommitted")


def test_a_key_that_the_user_stored_is_never_shown(valet: ValetProcess) -> None:
    assert call(valet, "PUT", "/secrets/control", {"value": "my-own-key-4711"}).status_code == 200
    assert call(valet, "GET", "/setup").json() == {"needs_setup": True, "api_key": None}
    assert call(valet, "POST", "/setup/apply", {"host": "0.0.0.0"}).status_code == 200
    assert call(valet, "GET", "/settings").json()["control"]["api_key"] == "keyring:control"
    assert "my-own-key-4711" not in (valet.home / "logs" / "tray-valet.log").read_text()
    assert call(valet, "DELETE", "/secrets/control").status_code == 200
    assert call(valet, "DELETE", "/secrets/control").status_code == 404


def test_a_key_made_for_the_user_survives_a_restart_until_it_is_noted(valet: ValetProcess) -> None:
    call(valet, "POST", "/setup/apply", {"host": "0.0.0.0"})
    key = call(valet, "GET", "/setup").json()["api_key"]
    valet.kill()
    valet.start()
    assert call(valet, "GET", "/setup").json()["api_key"] == key
    assert call(valet, "POST", "/setup/apply", {"host": "0.0.0.0"}).status_code == 409
    assert call(valet, "GET", "/setup").json()["api_key"] == key


def test_a_game_can_be_told_to_leave_the_models_and_to_set_them_aside_again(valet: ValetProcess) -> None:
    game = valet.play()
    valet.wait_state("paused")
    [running] = call(valet, "GET", "/games").json()["running"]
    chosen = call(valet, "PUT", f"/games/{running['key']}", {"action": "off"})
    assert (chosen.status_code, chosen.json()["key"]) == (200, running["key"])
    valet.wait_state("running")
    assert call(valet, "PUT", f"/games/{running['key']}", {"action": "on"}).status_code == 200
    valet.wait_state("paused")
    valet.stop(game)
