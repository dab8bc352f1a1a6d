"""The main job, whole: a game starts, the models go, and the same models come back."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.whole.valet_process import ValetProcess, engine_pids, free_first_port, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")


def local_provider(home: Path, tiny_model: Path, *names: str, **fields: Any) -> dict[str, Any]:
    """Settings of a llama-server provider on the embedded engine; the models lie in the home."""
    home.mkdir(parents=True, exist_ok=True)
    models = {}
    for name in names:
        shutil.copy(tiny_model, home / f"{name}.gguf")
        models[name] = {
            "model_path": str(home / f"{name}.gguf"),
            "flags": ["--ctx-size", "2048", "--context-shift"],
            **fields,
        }
    return {"kind": "llama-server", "first_port": free_first_port(), "models": models}


@pytest.fixture
def valet(tmp_path: Path, tiny_model: Path) -> Iterator[ValetProcess]:
    home = tmp_path / "home"
    settings = {"providers": {"local": local_provider(home, tiny_model, "one", "two")}}
    with ValetProcess(home, settings) as process:
        yield process
    assert engine_pids(home) == [], "no runner outlives the valet"


def test_two_resident_models_both_go_and_both_come_back_as_they_were(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one", "num_ctx": 1024})
    valet.post("/load", {"model": "two", "num_ctx": 4096})
    before = valet.loaded()
    answer = valet.chat("one").json()["choices"][0]["message"]["content"]

    game = valet.play()
    valet.wait_state("paused")
    assert valet.loaded() == {}
    assert engine_pids(valet.home) == []
    status = valet.get("/status")
    assert status["watchdog"]["last_reason"] == "game detected — steamapps/common/Hades"
    assert {m["name"] for m in status["to_bring_back"]} == {"one", "two"}
    assert status["last_pause"]["freed_mb"] > 10

    refused = valet.chat("one")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("unavailable_error", "paused")
    assert "Hades" in error["message"]

    valet.stop(game)
    valet.wait_state("running")
    after = valet.loaded()
    assert {n: m["context_length"] for n, m in after.items()} == {"one": 1024, "two": 4096}
    assert {n: m["context_length"] for n, m in before.items()} == {"one": 1024, "two": 4096}
    for name in ("one", "two"):
        assert 200 < after[name]["ttl_left_seconds"] <= 300, "what was left, not for ever"
    assert valet.chat("one").json()["choices"][0]["message"]["content"] == answer


def test_v1_a_manual_pause_stays_until_the_user_ends_it(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one"})
    assert valet.post("/pause")["state"] == "paused"
    game = valet.play()
    until(lambda: len(valet.get("/holds")["holds"]) == 2, "the game is seen too")
    valet.stop(game)
    until(lambda: len(valet.get("/holds")["holds"]) == 1, "the game's hold ends")
    valet.play("steamapps/common/Other/Other", "1.2").wait()
    assert valet.state == "paused"
    assert valet.post("/resume")["state"] == "running"
    assert set(valet.loaded()) == {"one"}


def test_v2_a_manual_resume_during_a_game_lasts_until_that_game_exits(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one"})
    game = valet.play()
    valet.wait_state("paused")
    assert valet.post("/resume")["state"] == "running"
    for _ in range(15):  # several intervals and libraries' looks
        assert valet.state == "running"
        assert set(valet.loaded()) == {"one"}
    assert valet.get("/holds")["holds"][0]["overridden"] is True
    valet.stop(game)
    until(lambda: valet.get("/holds")["holds"] == [], "the game's hold ends")
    assert valet.state == "running"
    valet.play()
    valet.wait_state("paused")


def test_a_game_that_starts_again_within_the_debounce_keeps_the_override(
    tmp_path: Path, tiny_model: Path
) -> None:
    home = tmp_path / "home"
    settings = {
        "providers": {"local": local_provider(home, tiny_model, "one")},
        "games": {"end_debounce_seconds": 20},
    }
    with ValetProcess(home, settings) as valet:
        valet.post("/load", {"model": "one"})
        game = valet.play()
        valet.wait_state("paused")
        valet.post("/resume")
        valet.stop(game)
        until(lambda: valet.get("/games")["running"][0]["ending"], "the game has no process left")
        valet.play()
        until(lambda: not valet.get("/games")["running"][0]["ending"], "the game runs again")
        assert valet.state == "running"
        assert set(valet.loaded()) == {"one"}
        assert valet.get("/holds")["holds"][0]["overridden"] is True


def test_a_second_game_is_not_covered_by_the_first_ones_override(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one"})
    valet.play()
    valet.wait_state("paused")
    valet.post("/resume")
    valet.play("steamapps/common/Factorio/Factorio")
    valet.wait_state("paused")
    assert valet.loaded() == {}


def test_a_model_that_was_loaded_by_nobody_does_not_come_back(valet: ValetProcess) -> None:
    game = valet.play()
    valet.wait_state("paused")
    assert "No model was loaded" in valet.get("/watchdog")["line"]
    valet.stop(game)
    valet.wait_state("running")
    assert valet.loaded() == {}
    assert valet.activity("models_brought_back") == []


def test_a_load_during_a_game_is_refused_unless_the_user_insists(valet: ValetProcess) -> None:
    valet.play()
    valet.wait_state("paused")
    error = valet.post("/load", {"model": "one"}, status=409)["error"]
    assert error["code"] == "game_running"
    assert "Hades" in error["message"]
    assert valet.loaded() == {}
    valet.post("/load", {"model": "one", "override": True})
    assert set(valet.loaded()) == {"one"}
    assert valet.state == "running"


def test_a_load_after_a_manual_pause_counts_as_the_resume(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one"})
    valet.post("/pause")
    valet.post("/load", {"model": "two"})
    assert valet.state == "running"
    assert set(valet.loaded()) == {"one", "two"}


def test_a_stream_that_is_still_running_after_the_drain_ends_with_a_clear_error(
    tmp_path: Path, tiny_model: Path
) -> None:
    home = tmp_path / "home"
    settings = {
        "providers": {"local": local_provider(home, tiny_model, "one")},
        "eviction": {"drain_seconds": 0.5},
    }
    with ValetProcess(home, settings) as valet:
        body = {
            "model": "one",
            "messages": [{"role": "user", "content": "Go on"}],
            "stream": True,
            "ignore_eos": True,
            "max_tokens": 100_000,
        }
        with valet.router.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.iter_lines()
            first = next(lines)
            assert first.startswith("data: ")
            valet.play()
            rest = [line for line in lines if line.startswith("data: ")]
        error = json.loads(rest[-1].removeprefix("data: "))["error"]
        assert error["code"] == "paused"
        assert "Hades" in error["message"]
        valet.wait_state("paused")
        assert engine_pids(home) == []
        assert valet.activity("answers_ended")


def test_a_short_answer_finishes_within_the_drain(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one"})
    body = {"model": "one", "messages": [{"role": "user", "content": "Go on"}], "stream": True}
    with valet.router.stream("POST", "/v1/chat/completions", json=body) as stream:
        iterator = stream.iter_lines()
        lines = [next(iterator)]
        valet.play()
        lines += list(iterator)
    assert any("[DONE]" in line for line in lines)
    valet.wait_state("paused")
