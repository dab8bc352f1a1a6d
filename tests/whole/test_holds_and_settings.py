"""Pauses asked for by programs, settings that change while everything runs, several providers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, clean_environment, engine_pids, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")


@pytest.fixture
def valet(tmp_path: Path, tiny_model: Path) -> Iterator[ValetProcess]:
    home = tmp_path / "home"
    with ValetProcess(home, {"providers": {"local": local_provider(home, tiny_model, "one")}}) as process:
        yield process


def command(valet: ValetProcess, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), "TRAY_VALET_HOME": str(valet.home), "TRAY_VALET_ALLOW_ROOT": "1"}
    return subprocess.run(
        [sys.executable, "-m", "tray_valet", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_programs_hold_pauses_and_its_end_resumes(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one"})
    answer = valet.control.post("/holds", json={"owner": "renderer", "reason": "final frame"})
    assert answer.status_code in (200, 201)
    hold_id = answer.json()["id"]
    assert valet.state == "paused", "the answer came when the models were out"
    assert valet.loaded() == {}
    assert "renderer" in valet.get("/watchdog")["title"]
    assert valet.control.delete(f"/holds/{hold_id}").status_code in (200, 204)
    valet.wait_state("running")
    assert set(valet.loaded()) == {"one"}
    assert valet.control.delete(f"/holds/{hold_id}").status_code == 404


def test_a_pause_that_gets_another_end_is_told_at_once(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one"})
    with valet.control.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        valet.post("/pause", {"for_seconds": 1800})
        valet.post("/pause/force")  # without an end; this one has no cooldown
        told = (line for line in lines if line == "event: hold_placed")
        assert [next(told), next(told)] == ["event: hold_placed"] * 2
    assert valet.get("/watchdog")["line"] == "1 model waits until you resume."


def test_a_hold_ends_with_its_time_and_with_its_process(valet: ValetProcess) -> None:
    valet.post("/load", {"model": "one"})
    answer = valet.control.post("/holds", json={"owner": "short", "ttl_seconds": 4})
    assert answer.json()["state"] == "paused"
    valet.wait_state("running")
    worker = subprocess.Popen(["sleep", "600"])
    try:
        valet.control.post("/holds", json={"owner": "worker", "pid": worker.pid})
        assert valet.state == "paused"
        time.sleep(1)
        assert valet.state == "paused"
    finally:
        worker.kill()
        worker.wait()
    valet.wait_state("running")
    assert valet.control.post("/holds", json={"owner": "x", "pid": 2**22 + 5}).status_code == 400


def test_run_holds_from_before_the_command_until_its_end_and_passes_its_exit_code_on(
    valet: ValetProcess,
) -> None:
    valet.post("/load", {"model": "one"})
    script = (
        "import json,os,sys,urllib.request;"
        f"s=json.load(urllib.request.urlopen('{valet.control.base_url}/watchdog'))['state'];"
        "print(s); sys.exit(7)"
    )
    done = command(valet, "run", "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout.strip()) == (7, "paused"), done.stderr
    valet.wait_state("running")
    assert set(valet.loaded()) == {"one"}


def test_v11_a_changed_interval_and_limit_act_at_once(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings = {
        "providers": {"local": local_provider(home, tiny_model, "one")},
        "thresholds": {"check_interval_seconds": 3600},
    }
    with ValetProcess(home, settings) as valet:
        limits = {"ram_pause_pct": 0.2, "ram_resume_pct": 0.1, "check_interval_seconds": 1}
        answer = valet.control.put("/config", json=limits)
        assert answer.status_code == 200, answer.text
        # Nothing of ours is loaded, so all use is others': the new limit is reached.
        valet.wait_state("paused")
        assert valet.get("/watchdog")["last_reason"].startswith("RAM ")
        assert ">= 0.2% threshold" in valet.get("/watchdog")["last_reason"]
        valet.control.put("/config", json={"ram_pause_pct": 99, "ram_resume_pct": 98})
        valet.wait_state("running")
        stored = (home / "config.yaml").read_text()
        assert "99" in stored


def test_a_broken_file_keeps_the_last_good_settings_and_says_so(valet: ValetProcess) -> None:
    good = (valet.home / "config.yaml").read_text()
    (valet.home / "config.yaml").write_text("thresholds: {ram_pause_pct: eighty}\n")
    until(lambda: valet.get("/status")["settings_problem"] is not None, "the mistake is said")
    assert "thresholds.ram_pause_pct" in valet.get("/status")["settings_problem"]
    assert valet.get("/config")["ram_pause_pct"] == 85.0
    assert valet.control.put("/config", json={"ram_pause_pct": 80}).status_code in (400, 409)
    assert "eighty" in (valet.home / "config.yaml").read_text(), "never overwritten"
    (valet.home / "config.yaml").write_text(good)
    until(lambda: valet.get("/status")["settings_problem"] is None, "all is well again")


def test_a_provider_that_is_added_to_the_file_is_there_without_a_restart(
    valet: ValetProcess, tiny_model: Path
) -> None:
    valet.post("/load", {"model": "one"})
    pid = engine_pids(valet.home)
    more = local_provider(valet.home, tiny_model, "three")
    valet.write_settings(
        {"providers": {"local": local_provider(valet.home, tiny_model, "one"), "more": more}}
    )
    until(lambda: len(valet.get("/providers")["providers"]) == 2, "it is there")
    valet.post("/load", {"model": "three"})
    assert set(valet.loaded()) == {"one", "three"}
    assert pid[0] in engine_pids(valet.home), "what was loaded stays loaded"


def test_no_more_models_than_max_concurrent_are_loaded_at_once(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings = {
        "providers": {"local": local_provider(home, tiny_model, "one", "two", "three")},
        "models": {"max_concurrent": 2},
    }
    with ValetProcess(home, settings) as valet:
        for name in ("one", "two"):
            valet.post("/load", {"model": name})
        assert valet.chat("one").status_code == 200
        valet.post("/load", {"model": "three"})
        assert set(valet.loaded()) == {"one", "three"}, "the least recently used left"


def test_an_idle_model_is_unloaded_after_its_time(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    settings = {
        "providers": {"local": local_provider(home, tiny_model, "one")},
        "models": {"idle_timeout_seconds": 1},
    }
    with ValetProcess(home, settings) as valet:
        valet.post("/load", {"model": "one"})
        until(lambda: valet.loaded() == {}, "it is unloaded")
        assert "without use" in valet.activity("model_unloaded")[0]["text"]


@pytest.mark.timeout(400)  # a runner of idle priority has the CPU only when nobody else wants it
def test_a_cpu_only_model_goes_on_serving_during_a_game(tmp_path: Path, tiny_model: Path) -> None:
    home = tmp_path / "home"
    small = local_provider(home, tiny_model, "small", cpu_only=True)["models"]["small"]
    provider = local_provider(home, tiny_model, "one")
    provider["models"]["small"] = small
    settings = {
        "providers": {"local": provider},
        "routes": {
            "assistant": {
                "candidates": [
                    {"provider": "local", "model": "one"},
                    {"provider": "local", "model": "small"},
                ],
                "when_paused": "next",
            }
        },
    }
    with ValetProcess(home, settings) as valet:
        valet.post("/load", {"model": "one"})
        valet.post("/load", {"model": "small"})
        assert valet.chat("assistant").headers["x-valet-model"].endswith("one")
        valet.play()
        valet.wait_state("paused")
        assert set(valet.loaded()) == {"small"}
        answer = valet.chat("assistant", max_tokens=4)  # few: at idle priority each may take seconds
        assert answer.status_code == 200
        assert answer.headers["x-valet-model"].endswith("small")
        assert valet.chat("one").status_code == 503


def test_without_providers_the_demo_model_serves_and_every_surface_says_so(tmp_path: Path) -> None:
    with ValetProcess(tmp_path / "home", {}) as valet:
        if not valet.get("/status")["builtin_demo"]:
            pytest.skip("an Ollama answers on this machine")
        assert "built-in demo model" in valet.get("/watchdog")["line"]
        provider = valet.get("/providers")["providers"][0]
        assert "built_in_demo" in {c["type"] for c in provider["conditions"]}
        name = valet.get("/models")["models"][0]["name"]
        assert valet.chat(name).status_code == 200
        shown = command(valet, "status").stdout
        assert "built-in demo model" in shown


def test_a_second_valet_on_the_same_home_is_refused(valet: ValetProcess) -> None:
    second = command(valet, "serve")
    assert second.returncode == 1
    assert "already running" in second.stderr
    assert valet.state == "running"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be refused as root"
)
def test_root_is_refused_unless_told(tmp_path: Path) -> None:
    environment = {**clean_environment(), "TRAY_VALET_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tray_valet", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "--allow-root" in done.stderr


@pytest.mark.parametrize("way", ["off", "ask", "no games"])
def test_a_game_that_no_longer_counts_gives_the_models_back_at_once(
    tmp_path: Path, tiny_model: Path, way: str
) -> None:
    """It has not ended, so there is neither a restart nor a grace time to wait for."""
    home = tmp_path / "home"
    games = {"grace_seconds": 600, "end_debounce_seconds": 600}
    settings = {"games": games, "providers": {"local": local_provider(home, tiny_model, "one")}}
    with ValetProcess(home, settings) as valet:
        valet.post("/load", {"model": "one"})
        valet.play()
        valet.wait_state("paused")
        key = valet.get("/games")["running"][0]["key"]
        if way == "no games":
            answer = valet.control.put("/settings", json={"games": {"enabled": False}})
        else:
            answer = valet.control.put(f"/games/{key}", json={"action": way})
        assert answer.status_code == 200
        valet.wait_state("running")
        assert set(valet.loaded()) == {"one"}
        told = [entry["text"] for entry in valet.activity("game_ended")]
        assert told == ([] if way == "ask" else ["Hades no longer counts as a game."])
