"""The whole valet against a client that loads at Ollama itself, in a loop, through a real pause; then what
is remembered of the game."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.valet_process import ValetProcess, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")

RESTLESS = """
import json, sys, time, urllib.error, urllib.request
body = json.dumps({"model": "small", "keep_alive": 200}).encode()
while True:
    call = urllib.request.Request(sys.argv[1] + "/api/generate", body, {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(call, timeout=60).read()
    except (OSError, urllib.error.URLError):
        pass
    time.sleep(0.2)
"""


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


@pytest.fixture
def restless(tmp_path: Path, ollama: OllamaStandin) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Started by the test; ended with it."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for child in started:
        child.kill()
        child.wait()


def reloaded(valet: ValetProcess) -> list[dict[str, Any]]:
    return valet.activity("model_reloaded_during_pause")


@pytest.mark.slow
def test_a_client_that_reloads_in_a_loop_is_named_paced_and_leaves_the_restore_exact(
    valet: ValetProcess,
    ollama: OllamaStandin,
    restless: list[subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    ollama.set(load_s=3)  # as a real one: the connection stands while it loads
    ollama.load("big", keep_alive=200, options={"num_ctx": 8192})
    until(lambda: "big:latest" in valet.loaded(), "the valet has seen it")
    game = valet.play()
    valet.wait_state("paused")
    script = tmp_path / "restless.py"
    script.write_text(RESTLESS)
    client = subprocess.Popen([sys.executable, str(script), ollama.url])
    restless.append(client)
    until(lambda: len(reloaded(valet)) >= 2, "it has reloaded twice")
    texts = [entry["text"] for entry in reloaded(valet)]
    assert all(f"“restless” (process {client.pid})" in text for text in texts), texts
    conditions = valet.get("/providers")["providers"][0]["conditions"]
    reason = next(c["reason"] for c in conditions if c["type"] == "reloaded")
    assert f"Point “restless” at {valet.places['router']['url']} instead." in reason
    began_s, before = time.monotonic(), len(ollama.calls("/api/generate"))
    while time.monotonic() - began_s < 4:
        assert "big:latest" not in ollama.loaded(), "nothing of ours is loaded during the game"
        time.sleep(0.1)
    assert len(ollama.calls("/api/generate")) - before < 40
    assert len(reloaded(valet)) <= 4, "paced, not every second"
    client.kill()
    client.wait()
    until(lambda: ollama.loaded() == {}, "the last one is out as well", patience_s=40)
    valet.wait_state("paused")
    valet.stop(game)
    valet.wait_state("running")
    back = ollama.loaded()
    assert {name: m["context_length"] for name, m in back.items()} == {"big:latest": 8192}

    ledger = valet.get("/ledger")
    hades = next(g for g in ledger["games"] if g["name"] == "Hades")
    assert (hades["times"], hades["restores"], hades["played_times"]) == (1, 1, 1)
    assert hades["reloads"] >= 2
    assert hades["freed_mb"] >= 50
    assert 0 < hades["worst_seconds"] < 20
    assert "/" not in hades["key"]
    samples = valet.get("/history?minutes=10")["samples"]
    assert {"paused", "pausing"} & {sample["state"] for sample in samples}


def test_the_ledger_survives_a_kill_and_is_forgotten_on_demand(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.load("big", keep_alive=200)
    until(lambda: "big:latest" in valet.loaded(), "the valet has seen it")
    game = valet.play()
    valet.wait_state("paused")
    file = valet.home / "state" / "ledger.json"
    until(lambda: file.exists() and b'"times":1' in file.read_bytes(), "it is written by itself")
    valet.kill()
    valet.start()
    assert [g["name"] for g in valet.get("/ledger")["games"]] == ["Hades"]
    valet.stop(game)
    valet.wait_state("running")
    assert valet.control.delete("/ledger", params={"game": "Doom"}).status_code == 404
    assert valet.control.delete("/ledger", params={"game": "hades"}).json() == {"forgotten": 1}
    valet.kill()
    valet.start()
    assert valet.get("/ledger")["games"] == []


def test_a_ledger_that_was_damaged_does_not_keep_the_valet_from_starting(
    valet: ValetProcess,
) -> None:
    valet.kill()
    file = valet.home / "state" / "ledger.json"
    file.write_bytes(b'{"games": {"half')
    valet.start()
    assert valet.get("/ledger")["games"] == []
    assert file.with_suffix(".damaged").exists()
    assert "The ledger was damaged" in "\n".join(valet.get("/logs")["lines"])
