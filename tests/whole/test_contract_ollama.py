"""The APIs in front of an Ollama: what was loaded before the valet came, and names with tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.valet_process import ValetProcess


@pytest.fixture(scope="module")
def ollama() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "llama3:latest=60", "--model", "llama3:8b=8") as standin:
        yield standin


@pytest.fixture(scope="module")
def valet(tmp_path_factory: pytest.TempPathFactory, ollama: OllamaStandin) -> Iterator[ValetProcess]:
    settings = {
        "games": {"enabled": False},
        "models": {"default": "llama3"},
        "providers": {"ollama": {"kind": "ollama", "url": ollama.url}},
    }
    with ValetProcess(tmp_path_factory.mktemp("ollama") / "home", settings) as process:
        yield process


def test_a_model_that_leaves_too_little_room_is_told_at_the_start_and_in_the_status(
    tmp_path: Path, ollama: OllamaStandin
) -> None:
    ollama.load("llama3", keep_alive=-1)
    ollama.load("llama3:8b", keep_alive=-1)
    # A share of RAM that the model of 60 MB exceeds and the one of 8 MB does not.
    limit_pct = 100 * 30 * 2**20 / psutil.virtual_memory().total
    settings = {
        "games": {"enabled": False},
        "thresholds": {"ram_pause_pct": limit_pct, "ram_resume_pct": limit_pct / 2},
        "providers": {"ollama": {"kind": "ollama", "url": ollama.url}},
    }
    with ValetProcess(tmp_path / "home", settings) as valet:
        told = valet.activity("overcommitted")
        log = (valet.home / "logs" / "tray-valet.log").read_text()
    assert [entry["text"].partition(",")[0] for entry in told] == ["llama3:latest takes 60\u00a0MB"]
    assert told[0]["problem"] is True
    assert '"level": "warning"' in next(line for line in log.splitlines() if '"overcommitted"' in line)


def test_the_default_model_is_the_one_that_the_status_shows(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    valet.post("/load", {"model": "ollama/llama3:latest", "num_ctx": 2048})
    valet.post("/load", {"model": "llama3:8b"})
    provider = valet.get("/status")["provider"]
    assert (provider["model_name"], provider["loaded_context_length"]) == ("llama3:latest", 2048)
    assert (provider["endpoint"], provider["kind"], provider["overcommit"]) == (ollama.url, "ollama", False)


def test_a_name_without_its_tag_is_the_latest_and_never_another_one(valet: ValetProcess) -> None:
    for name in ("llama3", "llama3:latest", "ollama/llama3"):
        assert valet.chat(name, max_tokens=2).headers["x-valet-model"] == "llama3:latest"
        assert valet.router.get(f"/v1/models/{name}").json()["id"] == "llama3:latest"
    for name in ("llama3:70b", "llama"):
        assert valet.chat(name).status_code == 404
        assert valet.control.post("/load", json={"model": name}).status_code == 404
