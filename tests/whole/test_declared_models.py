"""Declared models on a whole valet, with a stand-in for Ollama."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.valet_process import PATIENCE_S, ValetProcess


@pytest.fixture(scope="module")
def standin() -> Iterator[OllamaStandin]:
    with OllamaStandin() as process:
        yield process


@pytest.fixture
def ollama(standin: OllamaStandin) -> OllamaStandin:
    standin.reset()
    return standin


def declaring(ollama: OllamaStandin, *models: str) -> dict[str, Any]:
    return {"providers": {"ollama": {"kind": "ollama", "url": ollama.url, "models": list(models)}}}


def until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s, "it did not come true in time"
        time.sleep(0.05)


def downloads(valet: ValetProcess) -> list[tuple[str, str]]:
    return [(d["model"], d["state"]) for d in valet.control.get("/downloads").json()["downloads"]]


def models(valet: ValetProcess) -> set[str]:
    return {m["name"] for m in valet.control.get("/models").json()["models"]}


def test_declared_models_are_fetched_once_and_never_deleted(tmp_path: Path, ollama: OllamaStandin) -> None:
    ollama.set(pull_s=0.2)
    with ValetProcess(tmp_path / "home", declaring(ollama, "llama3", "fresh", "fresh:latest")) as valet:
        until(lambda: downloads(valet) == [("fresh:latest", "done")])
        before = models(valet)
        assert "fresh:latest" in before
        changed = {"providers": {"ollama": {"models": ["llama3", "second"]}}}
        assert valet.control.put("/settings", json=changed).status_code == 200
        until(lambda: ("second:latest", "done") in downloads(valet))
        assert models(valet) == before | {"second:latest"}
        assert len(ollama.calls("/api/pull")) == 2
    assert ollama.calls("/api/delete") == []


def test_c8_a_declared_model_that_was_cancelled_stays_away_until_the_next_start(
    tmp_path: Path, ollama: OllamaStandin
) -> None:
    ollama.set(pull_s=30.0)
    with ValetProcess(tmp_path / "home", declaring(ollama, "fresh")) as valet:
        until(lambda: downloads(valet) == [("fresh:latest", "running")])
        [begun] = valet.control.get("/downloads").json()["downloads"]
        assert valet.control.delete(f"/downloads/{begun['id']}").status_code == 200
        answer = valet.control.put("/settings", json={"models": {"max_concurrent": 2}})
        assert answer.status_code == 200
        ollama.kill()
        until(lambda: valet.control.get("/providers").json()["providers"][0]["state"] == "unreachable")
        ollama.start()
        ollama.set(pull_s=0.2)
        until(lambda: valet.control.get("/providers").json()["providers"][0]["state"] == "ready")
        time.sleep(0.5)  # that nothing happens cannot be waited for
        assert downloads(valet) == [("fresh:latest", "cancelled")]
        valet.kill()
        valet.start()
        until(lambda: ("fresh:latest", "done") in downloads(valet))
