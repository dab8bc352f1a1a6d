"""`tray-valet selftest` against real valets: an Ollama stand-in, and the embedded engine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.valet_process import ValetProcess, clean_environment, until

STEPS = ["ready", "chosen", "loaded", "captured", "gone", "restored", "compared"]


@pytest.fixture
def ollama() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "big:latest=40", "--model", "small:latest=8") as standin:
        yield standin


@pytest.fixture
def valet(tmp_path: Path, ollama: OllamaStandin) -> Iterator[ValetProcess]:
    settings = {
        "games": {"enabled": False},
        "thresholds": {"ram_pause_pct": 100.0, "cpu_pause_pct": 100.0, "cpu_sustained_seconds": 3600},
        "providers": {"ollama": {"kind": "ollama", "url": ollama.url}},
    }
    with ValetProcess(tmp_path / "home", settings) as process:
        yield process


def start(valet: ValetProcess, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tray_valet", "selftest", *words]
    return subprocess.Popen(
        argv, env=valet.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_step(process: subprocess.Popen[str], name: str) -> None:
    """Read on until that step was seen."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"✓ {name}"):
            return
    raise AssertionError(f"the step {name} was not seen")


def run(valet: ValetProcess, *words: str) -> tuple[int, dict[str, Any]]:
    process = start(valet, "--json", *words)
    out, err = process.communicate(timeout=90)
    assert out, err
    return process.returncode, json.loads(out)


def holds(valet: ValetProcess) -> list[Any]:
    return list(valet.get("/holds")["holds"])


def test_a_loaded_model_goes_and_comes_back_as_it_was(valet: ValetProcess, ollama: OllamaStandin) -> None:
    valet.post("/load", {"model": "big", "num_ctx": 2048})
    code, told = run(valet)
    assert (code, told["ok"], told["model"], told["provider"]) == (0, True, "big:latest", "ollama"), told
    assert [step["name"] for step in told["steps"]] == STEPS
    assert {each["field"] for each in told["compared"]} == {
        "name",
        "provider",
        "context_length",
        "ttl_left_seconds",
    }
    assert all(each["is_same"] for each in told["compared"])
    gone = next(step for step in told["steps"] if step["name"] == "gone")
    assert gone["detail"]["witness"] == "Ollama's own list"
    assert ollama.loaded()["big:latest"]["context_length"] == 2048
    assert (holds(valet), valet.state) == ([], "running")


def test_a_model_that_was_not_loaded_is_unloaded_again(valet: ValetProcess, ollama: OllamaStandin) -> None:
    code, told = run(valet, "small")
    assert (code, told["ok"], told["left"]) == (0, True, []), told
    assert ollama.loaded() == {}
    assert holds(valet) == []


def test_other_models_that_were_loaded_come_back_too(valet: ValetProcess, ollama: OllamaStandin) -> None:
    valet.post("/load", {"model": "big", "num_ctx": 2048})
    code, told = run(valet, "small")
    assert code == 0, told
    assert list(ollama.loaded()) == ["big:latest"]
    assert {each["model"] for each in told["compared"]} == {"big:latest", "small:latest"}


@pytest.mark.slow
def test_a_restore_that_fails_names_the_step_the_reason_and_what_comes_next(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    valet.post("/load", {"model": "big"})
    ollama.set(load_error="the blob is damaged")  # what is loaded stays so until it is set aside
    code, told = run(valet)
    assert (code, told["ok"], told["failed_step"]) == (1, False, "restored"), told
    assert "the blob is damaged" in told["problem"]
    assert "given up after three tries" in told["next"]
    assert "tray-valet load big:latest --provider ollama" in told["next"]
    assert holds(valet) == []


@pytest.mark.slow
def test_a_provider_that_dies_meanwhile_is_named(valet: ValetProcess, ollama: OllamaStandin) -> None:
    valet.post("/load", {"model": "big"})
    ollama.set(load_s=5.0)
    process = start(valet)
    wait_for_step(process, "gone")
    ollama.kill()
    out, _ = process.communicate(timeout=110)
    assert process.returncode == 1
    assert "✗ restored  ollama no longer answers." in out
    assert "The valet brings ollama/big:latest back when it does." in out
    assert [model["name"] for model in valet.get("/status")["to_bring_back"]] == ["big:latest"]


def test_ctrl_c_leaves_all_as_it_was(valet: ValetProcess, ollama: OllamaStandin) -> None:
    ollama.set(load_s=1.0)
    valet.post("/load", {"model": "big", "num_ctx": 2048})
    process = start(valet, "big")
    wait_for_step(process, "captured")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in out
    assert holds(valet) == []
    until(lambda: "big:latest" in ollama.loaded(), "the model is back")


def test_a_killed_selftest_leaves_no_hold(valet: ValetProcess, ollama: OllamaStandin) -> None:
    ollama.set(load_s=2.0)
    valet.post("/load", {"model": "big"})
    process = start(valet)
    wait_for_step(process, "captured")
    process.kill()
    process.communicate(timeout=60)
    until(lambda: holds(valet) == [], "the hold ends with its process")
    until(lambda: "big:latest" in ollama.loaded(), "the model is back")


def test_while_the_models_are_set_aside_it_refuses_and_touches_nothing(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    valet.post("/load", {"model": "big"})
    valet.post("/pause", {"reason": "a film"})
    before = len(ollama.calls())
    code, told = run(valet)
    assert code == 1
    assert "set aside already" in told["error"]["message"]
    assert valet.state == "paused"
    assert [c["path"] for c in ollama.calls()[before:] if c["method"] == "POST"] == []


def test_an_unknown_model_is_said(valet: ValetProcess) -> None:
    code, told = run(valet, "nobody")
    assert code == 1
    assert "no model “nobody”" in told["error"]["message"]


def test_without_a_valet_it_ends_with_3(tmp_path: Path) -> None:
    environ = {**clean_environment(), "TRAY_VALET_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tray_valet", "selftest"],
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, "No valet is running" in done.stderr) == (3, True)


def test_offline_it_needs_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environ = {**clean_environment(), "TRAY_VALET_HOME": str(tmp_path / "home"), "TMPDIR": str(scratch)}
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tray_valet", "selftest", "--offline", "--json", "tiny"],
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"], told["offline"]) == (0, True, True), (done.stdout, done.stderr)
    assert [step["name"] for step in told["steps"]] == STEPS
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "home").exists()
    assert told["seconds"] <= time.monotonic() - began_s


def test_while_a_game_runs_it_refuses(tmp_path: Path, ollama: OllamaStandin) -> None:
    home = tmp_path / "home"
    settings = {
        "games": {"libraries": [{"store": "steam", "path": str(home / "library")}]},
        "providers": {"ollama": {"kind": "ollama", "url": ollama.url}},
    }
    with ValetProcess(home, settings) as valet:
        valet.play()
        valet.wait_state("paused")
        code, told = run(valet)
        assert (code, "Hades is running" in told["error"]["message"]) == (1, True), told
        assert [hold["kind"] for hold in holds(valet)] == ["game"]
