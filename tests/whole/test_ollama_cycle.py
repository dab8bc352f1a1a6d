"""The whole valet with an Ollama: several models, direct clients that keep it busy or load again."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.valet_process import ValetProcess, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")


@pytest.fixture
def ollama() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "big:latest=60", "--model", "small:latest=8") as standin:
        yield standin


@pytest.fixture
def valet(tmp_path: Path, ollama: OllamaStandin) -> Iterator[ValetProcess]:
    settings = {
        "providers": {"ollama": {"kind": "ollama", "url": ollama.url}},
        "eviction": {"drain_seconds": 0.5, "kill_after_seconds": 2, "confirm_seconds": 5},
    }
    with ValetProcess(tmp_path / "home", settings) as process:
        yield process


def generate_directly(ollama: OllamaStandin, model: str) -> threading.Thread:
    """A client of Ollama itself, that neither knows nor passes the valet; reads a long answer."""

    def read() -> None:
        body = {"model": model, "prompt": "Go on", "options": {"num_predict": 100_000}}
        try:
            with httpx.stream("POST", f"{ollama.url}/api/generate", json=body, timeout=60) as answer:
                for _ in answer.iter_lines():
                    pass
        except httpx.HTTPError:
            return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_v6_v7_v20_all_models_go_and_come_back_with_their_context_and_the_time_they_had_left(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.load("big", keep_alive=2000, options={"num_ctx": 8192})
    ollama.load("small", keep_alive=-1, options={"num_ctx": 2048})
    game = valet.play()
    valet.wait_state("paused")
    assert ollama.loaded() == {}
    assert ollama.state()["runners"] == {}
    assert valet.get("/status")["last_pause"]["confirmed_by_memory"] is True
    valet.stop(game)
    valet.wait_state("running")
    back = ollama.loaded()
    assert {n: m["context_length"] for n, m in back.items()} == {"big:latest": 8192, "small:latest": 2048}
    models = valet.loaded()
    assert 1000 < models["big:latest"]["ttl_left_seconds"] <= 2000
    assert models["small:latest"]["ttl_left_seconds"] is None, "for ever stays for ever"


def test_v20_a_model_that_had_expired_is_not_revived(valet: ValetProcess, ollama: OllamaStandin) -> None:
    ollama.load("small", keep_alive=0.2)
    ollama.load("big", keep_alive=300)
    until(lambda: "small:latest" not in ollama.loaded(), "its time is up")
    game = valet.play()
    valet.wait_state("paused")
    valet.stop(game)
    valet.wait_state("running")
    assert set(ollama.loaded()) == {"big:latest"}


def test_v5_paused_is_not_said_while_a_generation_holds_the_model(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.set(tokens_per_s=20, answer_tokens=100_000)
    ollama.load("big")
    reader = generate_directly(ollama, "big")
    until(lambda: ollama.state()["generating"] != 0 and ollama.state()["generating"] != {}, "it generates")
    valet.play()
    until(lambda: valet.state != "running", "the game is seen")
    while (seen := valet.get("/watchdog"))["state"] != "paused":
        assert seen["state"] == "pausing"
        assert seen["title"].startswith("Making room")
    assert ollama.loaded() == {}
    assert valet.activity("runner_killed"), "it did not let go by itself, so its process was ended"
    reader.join(60)


def test_v4_a_client_that_loads_again_in_mid_game_is_evicted_again(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.load("big", keep_alive=200)
    game = valet.play()
    valet.wait_state("paused")
    ollama.load("small", keep_alive=200)
    until(lambda: ollama.loaded() == {}, "it is set aside again")
    valet.wait_state("paused")
    assert valet.activity("model_reloaded_during_pause")
    conditions = valet.get("/providers")["providers"][0]["conditions"]
    assert "reloaded" in {c["type"] for c in conditions}
    valet.stop(game)
    valet.wait_state("running")
    assert set(ollama.loaded()) == {"big:latest"}, "exactly what was there before the game"


def test_v3_a_blip_of_the_provider_during_a_pause_keeps_the_pause_and_the_models(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.load("big", keep_alive=200, options={"num_ctx": 8192})
    game = valet.play()
    valet.wait_state("paused")
    ollama.kill()
    end_s = time.monotonic() + 2.5
    while time.monotonic() < end_s:
        assert valet.state == "paused"
        time.sleep(0.05)
    ollama.start()
    valet.stop(game)
    valet.wait_state("running")
    until(lambda: "big:latest" in ollama.loaded(), "it came back")
    assert ollama.loaded()["big:latest"]["context_length"] == 8192


def test_a_provider_that_stays_away_is_said_and_gets_its_models_when_it_is_back(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.load("big", keep_alive=200)
    game = valet.play()
    valet.wait_state("paused")
    ollama.kill()
    valet.stop(game)
    valet.wait_state("provider_down")
    assert "ollama" in valet.get("/watchdog")["title"]
    ollama.start()
    valet.wait_state("running")
    until(lambda: set(ollama.loaded()) == {"big:latest"}, "it came back with its provider")


def test_an_ollama_that_died_is_said_within_a_round_of_looks_and_at_once_after_a_request(
    tmp_path: Path, ollama: OllamaStandin
) -> None:
    def told() -> tuple[int, bool]:
        metrics = valet.router.get("/metrics").text
        [line] = (line for line in metrics.splitlines() if line.startswith("valet_provider_up{"))
        return valet.router.get("/health").status_code, float(line.split()[-1]) == 1

    def wait_told(status: int, is_up: bool, within_s: float) -> None:
        end_s = time.monotonic() + within_s
        while told() != (status, is_up):
            assert time.monotonic() < end_s, told()
            time.sleep(0.05)

    settings = {
        "providers": {"ollama": {"kind": "ollama", "url": ollama.url}},
        "thresholds": {"check_interval_seconds": 5},
    }
    with ValetProcess(tmp_path / "home", settings) as valet:
        valet.wait_state("running")
        assert valet.chat("small", max_tokens=2).status_code == 200
        assert told() == (200, True)
        time.sleep(2)  # what looked at the start and after the load is over
        ollama.kill()
        wait_told(503, False, within_s=5 + 2 + 2)  # three rounds would be 15 s
        ollama.start()
        wait_told(200, True, within_s=9)
        assert valet.chat("small", max_tokens=2).status_code == 200
        time.sleep(1)
        ollama.kill()
        assert valet.chat("small", max_tokens=2).json()["error"]["code"] == "provider_unreachable"
        wait_told(503, False, within_s=4.0)


def test_v21_a_slow_load_completes(tmp_path: Path, ollama: OllamaStandin) -> None:
    ollama.set(load_s=8)
    settings = {"providers": {"ollama": {"kind": "ollama", "url": ollama.url}}}
    with ValetProcess(tmp_path / "home", settings) as valet:
        started_s = time.monotonic()
        valet.post("/load", {"model": "big"})
        assert time.monotonic() - started_s > 7
        assert set(valet.loaded()) == {"big:latest"}
        assert len(ollama.calls("/api/generate")) == 1, "asked once, not again at every tick"


def test_v18_a_name_with_slashes_is_accepted(valet: ValetProcess, ollama: OllamaStandin) -> None:
    name = "hf.co/someone/Some-Model-GGUF:Q4_K_M"
    ollama.set(add_models=[{"name": name, "memory_bytes": 2**20}])
    valet.post("/load", {"model": name})
    assert name in ollama.loaded()


def test_a_game_in_mid_restore_stops_the_load_and_nothing_is_lost(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.load("big", keep_alive=200)
    ollama.load("small", keep_alive=200)
    game = valet.play()
    valet.wait_state("paused")
    ollama.set(load_s=3)
    valet.stop(game)
    valet.wait_state("resuming")
    game = valet.play()
    valet.wait_state("paused")
    assert ollama.loaded() == {}
    ollama.set(load_s=0)
    valet.stop(game)
    valet.wait_state("running")
    until(lambda: set(ollama.loaded()) == {"big:latest", "small:latest"}, "both are back")


def test_c2_where_nothing_is_declared_nothing_is_deleted_or_fetched(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.load("big", keep_alive=100)
    game = valet.play()
    valet.wait_state("paused")
    valet.stop(game)
    valet.wait_state("running")
    valet.kill()
    valet.start()
    until(lambda: len(valet.get("/models")["models"]) == 2, "its models are listed again")
    assert ollama.calls("/api/delete") == ollama.calls("/api/pull") == []
