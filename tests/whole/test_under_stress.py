"""The whole valet when things go wrong at once: a provider that hangs, many clients, games that flicker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, engine_pids, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")


@pytest.fixture
def ollama() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "big:latest=60", "--model", "small:latest=8") as standin:
        yield standin


def _log_of(valet: ValetProcess) -> str:
    return (valet.home / "logs" / "tray-valet.log").read_text()


@pytest.fixture
def valet(tmp_path: Path, tiny_model: Path, ollama: OllamaStandin) -> Iterator[ValetProcess]:
    home = tmp_path / "home"
    settings = {
        "providers": {
            "ollama": {"kind": "ollama", "url": ollama.url},
            "local": local_provider(home, tiny_model, "one"),
        },
        "eviction": {"drain_seconds": 0.5, "kill_after_seconds": 2, "confirm_seconds": 5},
    }
    with ValetProcess(home, settings) as process:
        yield process
    assert "Traceback" not in _log_of(process)
    assert engine_pids(home) == []


def test_an_ollama_that_hangs_delays_nobody_loses_its_runner_and_gets_its_model_back(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.load("big", keep_alive=200, options={"num_ctx": 8192})
    valet.post("/load", {"model": "one"})
    until(lambda: set(valet.loaded()) == {"big:latest", "one"}, "both are known")
    [runner] = ollama.state()["runners"].values()
    ollama.freeze()
    try:
        game = valet.play()
        until(lambda: engine_pids(valet.home) == [], "the other provider's runner is gone")
        assert is_alive(runner)
        assert valet.state == "pausing", "not paused: the memory of the one that hangs is not free"
        valet.wait_state("paused")
        assert not is_alive(runner)
    finally:
        ollama.thaw()
    until(lambda: ollama.loaded() == {}, "what it still listed is unloaded")
    valet.wait_state("paused")
    assert not valet.activity("model_reloaded_during_pause"), "nobody loaded anything"
    assert {m["name"] for m in valet.get("/status")["to_bring_back"]} == {"big:latest", "one"}
    valet.stop(game)
    valet.wait_state("running")
    assert ollama.loaded()["big:latest"]["context_length"] == 8192
    assert set(valet.loaded()) == {"big:latest", "one"}


@pytest.mark.slow
def test_a_hundred_clients_through_three_pauses_each_get_an_answer_or_a_clear_refusal(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.set(tokens_per_s=2000, answer_tokens=40)  # it answers one after the other
    ollama.load("big", keep_alive=200)
    ends = asyncio.run(_hundred_clients(valet))
    assert set(ends) <= {"answer", "refused", "stream answer", "stream ended", "stream refused"}, ends
    assert min(sum(ends[kind] for kind in kinds) for kinds in (_ANSWERED, _REFUSED)) >= 100, ends
    valet.wait_state("running")
    assert valet.get("/status")["in_flight"] == 0


_ANSWERED = ("answer", "stream answer")
_REFUSED = ("refused", "stream refused")


async def _hundred_clients(valet: ValetProcess) -> Counter[str]:
    is_over = asyncio.Event()
    ends: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=valet.router.base_url, timeout=60, limits=limits) as client:

        async def ask_again_and_again(number: int) -> None:
            while not is_over.is_set():
                ends[await (_whole if number % 2 else _streamed)(client)] += 1
                await asyncio.sleep(0.2)

        async def until_more(kinds: tuple[str, ...]) -> None:
            """Until forty more have ended in these ways."""
            before = sum(ends[kind] for kind in kinds)
            async with asyncio.timeout(45):
                while sum(ends[kind] for kind in kinds) < before + 40:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

        clients = [asyncio.create_task(ask_again_and_again(n)) for n in range(100)]
        for _ in range(3):
            await until_more(_ANSWERED)
            game = valet.play()
            await asyncio.to_thread(valet.wait_state, "paused")
            await until_more(_REFUSED)
            valet.stop(game)
            await asyncio.to_thread(valet.wait_state, "running")
        await until_more(_ANSWERED)
        is_over.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*clients)
    return ends


def _body(*, is_stream: bool) -> dict[str, Any]:
    return {"model": "big", "messages": [{"role": "user", "content": "Hi"}], "stream": is_stream}


async def _whole(client: httpx.AsyncClient) -> str:
    answer = await client.post("/v1/chat/completions", json=_body(is_stream=False))
    return "answer" if answer.status_code == 200 else _refusal(answer.status_code, answer.json())


def _refusal(status: int, body: dict[str, Any]) -> str:
    is_clear = (status, body["error"]["code"]) == (503, "paused") and body["error"]["message"]
    return "refused" if is_clear else f"{status} {body}"


async def _streamed(client: httpx.AsyncClient) -> str:
    async with client.stream("POST", "/v1/chat/completions", json=_body(is_stream=True)) as answer:
        if answer.status_code != 200:
            return f"stream {_refusal(answer.status_code, json.loads(await answer.aread()))}"
        lines = [line async for line in answer.aiter_lines() if line.startswith("data:")]
    if lines and lines[-1].strip() == "data: [DONE]":
        return "stream answer" if not any('"error"' in line for line in lines) else "stream ended"
    last = json.loads(lines[-1].removeprefix("data:")) if lines else {}
    return "stream ended" if last.get("error", {}).get("code") == "paused" else f"stream broke: {lines[-1:]}"


_LINES_A_GAME = 5  # started, a reason, no longer one, ended; now and then a state


@pytest.mark.slow
def test_games_that_start_and_end_every_50_ms_leave_everything_as_it_was(
    valet: ValetProcess, ollama: OllamaStandin
) -> None:
    ollama.load("big", keep_alive=600, options={"num_ctx": 8192})
    valet.post("/load", {"model": "one", "num_ctx": 1024})
    before = _resources(valet.pid)
    end_s = time.monotonic() + 60
    number = 0
    while time.monotonic() < end_s:
        number += 1
        game = valet.play(f"steamapps/common/Game {number % 5}/game")
        time.sleep(0.05)
        valet.stop(game)
        time.sleep(0.05)
    valet.wait_state("running")
    until(lambda: set(valet.loaded()) == {"big:latest", "one"}, "both are back")
    back = {name: model["context_length"] for name, model in valet.loaded().items()}
    assert back == {"big:latest": 8192, "one": 1024}
    after = _resources(valet.pid)
    assert after["threads"] <= before["threads"] + 4
    assert after["fds"] <= before["fds"] + 8
    assert after["rss_mb"] <= before["rss_mb"] + 10
    lines = _log_of(valet).splitlines()
    assert len(lines) < number * _LINES_A_GAME + 500, "no line a tick"


def _resources(pid: int) -> dict[str, int]:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return {
        "threads": int(status["Threads"]),
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "rss_mb": int(status["VmRSS"].split()[0]) // 1024,
    }


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # it may end while it is looked at
        return False


@pytest.mark.slow  # alone: what other tests take would be other programs' growth
def test_our_own_models_at_the_limit_are_no_pressure_until_others_grow(
    tmp_path: Path, tiny_model: Path
) -> None:
    home = tmp_path / "home"
    settings = {"providers": {"local": local_provider(home, tiny_model, "one")}}
    with ValetProcess(home, settings) as valet:
        valet.post("/load", {"model": "one"})
        until(
            lambda: valet.get("/explain")["signals"][0]["others_at_load_pct"] is not None, "a base was taken"
        )
        now_pct = valet.get("/status")["metrics"]["memory"]["used_pct"]
        limit = max(0.3, now_pct - 0.5)
        valet.control.put("/config", json={"ram_resume_pct": limit / 2, "ram_pause_pct": limit})
        time.sleep(2.5)
        assert valet.state == "running", valet.get("/explain")
        hog = subprocess.Popen(
            [sys.executable, "-c", "b=bytearray(900*2**20); b[::4096]=b'x'*len(b[::4096]); input()"],
            stdin=subprocess.PIPE,
        )
        try:
            valet.wait_state("paused")
            assert engine_pids(home) == []
            assert valet.get("/holds")["holds"][0]["kind"] == "ram"
        finally:
            hog.kill()
            hog.wait()
