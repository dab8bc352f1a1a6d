"""kill -9 at random moments of pause and resume: no journalled model is lost, no runner is left."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, engine_pids, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")
KILLS = 50


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_fifty_kills_at_random_moments_lose_no_model_and_leave_no_runner(
    tmp_path: Path, tiny_model: Path
) -> None:
    dice = random.Random(20)
    home = tmp_path / "home"
    settings = {
        "providers": {"local": local_provider(home, tiny_model, "one", "two")},
        "games": {"grace_seconds": 0.05, "end_debounce_seconds": 0.05},
    }
    with ValetProcess(home, settings) as valet:
        valet.post("/load", {"model": "one", "num_ctx": 1024})
        valet.post("/load", {"model": "two"})
        until(lambda: len(valet.loaded()) == 2, "both are loaded")
        for _ in range(KILLS):
            # A short game: its start, the pause, its end, the resume all come within some 0.4 s.
            game = valet.play()
            if dice.random() < 0.7:
                time.sleep(dice.uniform(0, 0.06))
                valet.stop(game)
            time.sleep(dice.uniform(0, 0.45))
            valet.kill()
            until(lambda: engine_pids(home) == [], "no runner outlives the valet", patience_s=5)
            if game.poll() is None and dice.random() < 0.5:
                valet.stop(game)
            valet.start()
            if game.poll() is None:
                valet.wait_state("paused")
                assert engine_pids(home) == []
                valet.stop(game)
            valet.wait_state("running")
            until(lambda: len(valet.loaded()) == 2, "both are back", lambda: str(valet.get("/status")))
            assert {n: m["context_length"] for n, m in valet.loaded().items()} == {"one": 1024, "two": 2048}
    assert engine_pids(home) == []


def test_a_valet_killed_during_a_game_waits_for_its_end_and_says_what_happened(
    tmp_path: Path, tiny_model: Path
) -> None:
    home = tmp_path / "home"
    settings = {"providers": {"local": local_provider(home, tiny_model, "one")}}
    with ValetProcess(home, settings) as valet:
        valet.post("/load", {"model": "one"})
        game = valet.play()
        valet.wait_state("paused")
        valet.kill()
        valet.start()
        valet.wait_state("paused")
        started = valet.activity("valet_started")[0]["text"]
        assert "interrupted while paused" in started
        assert "one" in started
        valet.stop(game)
        valet.wait_state("running")
        assert set(valet.loaded()) == {"one"}


def test_a_users_pause_survives_a_kill(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings = {"providers": {"local": local_provider(home, tiny_model, "one")}}
    with ValetProcess(home, settings) as valet:
        valet.post("/load", {"model": "one"})
        valet.post("/pause", {"reason": "rendering"})
        valet.kill()
        valet.start()
        valet.wait_state("paused")
        assert valet.get("/holds")["holds"][0]["reason"] == "manual pause — rendering"
        assert valet.post("/resume")["state"] == "running"
        assert set(valet.loaded()) == {"one"}


def test_an_orderly_end_leaves_no_runner_and_nothing_to_bring_back(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings = {"providers": {"local": local_provider(home, tiny_model, "one")}}
    with ValetProcess(home, settings) as valet:
        valet.post("/load", {"model": "one"})
        assert valet.terminate() == 0
        assert engine_pids(home) == []
        assert not (home / "state" / "runtime.json").exists()
        valet.start()
        assert valet.loaded() == {}
        assert valet.get("/status")["to_bring_back"] == []
