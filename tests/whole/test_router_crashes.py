"""Runners that are killed or that crash again and again: said, limited, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.whole.router_homes import local, metric, pid_of, router_url
from tests.whole.valet_process import ValetProcess, engine_pids, send, until
from tray_valet.engine.tiny_model import REPLY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
ASK: Any = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def valet(home: Path, tiny_model: Path) -> Iterator[ValetProcess]:
    provider = local(home, tiny_model, {"one": ["--context-shift"], "two": ["--parallel", "4"], "cpu": []})
    provider["models"]["cpu"]["cpu_only"] = True
    (home / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    provider["models"]["broken"] = {"model_path": str(home / "broken.gguf")}
    settings = {
        "games": {"enabled": False},
        "models": {"max_concurrent": 4},
        "providers": {"local": provider},
        "routes": {
            "assistant": {
                "candidates": [
                    {"provider": "local", "model": "one"},
                    {"provider": "local", "model": "two"},
                ]
            },
            "hopeful": {
                "candidates": [
                    {"provider": "local", "model": "broken"},
                    {"provider": "local", "model": "two"},
                ]
            },
        },
    }
    with ValetProcess(home, settings) as process:
        yield process
    assert engine_pids(home) == []
    assert "Traceback" not in (home / "logs" / "tray-valet.log").read_text()


def status(valet: ValetProcess, model: str) -> dict[str, Any]:
    told: dict[str, Any] = valet.router.get(f"/v1/models/{model}/status").json()
    return told


def failed(valet: ValetProcess) -> dict[str, dict[str, Any]]:
    return {m["model"]: m for m in valet.router.get("/v1/models/failed").json()["failed_models"]}


def conditions(valet: ValetProcess) -> dict[str, str]:
    [provider] = valet.get("/providers")["providers"]
    return {c["type"]: c["reason"] for c in provider["conditions"]}


def kill_runner(valet: ValetProcess, model: str) -> int:
    """As the OOM killer does; returns its PID."""
    pid = pid_of(valet.home, model)
    assert pid
    send(pid, signal.SIGKILL)
    return pid


def test_a_stream_whose_runner_is_killed_ends_with_an_error_in_each_dialect(valet: ValetProcess) -> None:
    def ends_of(path: str, **fields: Any) -> str:
        body = {"model": "one", "messages": ASK, "stream": True, "max_tokens": 100_000, **fields}
        with valet.router.stream("POST", path, json=body) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            next(lines)
            kill_runner(valet, "one")
            events = [line for line in lines if line]
        until(lambda: status(valet, "one")["status"] == "ready", "it is back", lambda: str(failed(valet)))
        return "\n".join(events[-2:])

    last = ends_of("/v1/chat/completions", ignore_eos=True)
    assert '"error"' in last
    assert '"upstream_failed"' in last
    assert "[DONE]" not in last


def test_openais_client_gets_an_error_and_not_half_an_answer(valet: ValetProcess) -> None:
    with openai.OpenAI(base_url=f"{router_url(valet)}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="one", messages=ASK, stream=True, max_tokens=100_000, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        kill_runner(valet, "one")
        with pytest.raises(openai.APIError) as broken:
            for _ in stream:
                pass
        assert broken.value.code == "upstream_failed"


def test_a_whole_answer_whose_runner_is_killed_comes_from_the_next_candidate(valet: ValetProcess) -> None:
    for model in ("one", "two"):
        valet.post("/load", {"model": model})
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            valet.chat, "assistant", max_tokens=100_000, ignore_eos=True, n_predict=100_000, temperature=0
        )  # "one" goes on until it is killed; "two" until its context is full
        until(lambda: metric(valet, "router_active_requests", model="one") == 1, "it is in flight")
        kill_runner(valet, "one")
        answer = asked.result(60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-valet-model"] == "two"
    assert answer.headers["x-valet-reason"] == "fallback: local failed"


def test_the_route_goes_to_its_next_candidate_and_back(valet: ValetProcess) -> None:
    for model in ("one", "two"):
        valet.post("/load", {"model": model})
    assert valet.chat("assistant").headers["x-valet-model"] == "one"
    kill_runner(valet, "one")
    answer = valet.chat("assistant")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == REPLY
    until(lambda: status(valet, "one")["status"] == "ready", "it is back")
    assert valet.chat("assistant").headers["x-valet-model"] == "one"


def test_a_model_that_cannot_start_is_told_with_its_reason_and_its_route_goes_on(valet: ValetProcess) -> None:
    answer = valet.chat("hopeful")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-valet-model"] == "two"
    alone = valet.chat("broken")
    assert alone.status_code == 503
    error = alone.json()["error"]
    assert error["code"] == "load_failed", error
    assert error["log_tail"], "why, in the engine's own words"
    told = failed(valet)["broken"]
    assert told["attempts"] >= 1
    assert told["error"]
    assert valet.chat("two").status_code == 200


def test_others_never_notice_a_crash(valet: ValetProcess) -> None:
    for model in ("one", "two"):
        valet.post("/load", {"model": model})

    async def scene() -> Counter[int]:
        ends: Counter[int] = Counter()
        is_over = asyncio.Event()
        async with httpx.AsyncClient(base_url=router_url(valet), timeout=30, trust_env=False) as client:

            async def ask() -> None:
                while not is_over.is_set():
                    body = {"model": "two", "messages": ASK, "max_tokens": 8}
                    ends[(await client.post("/v1/chat/completions", json=body)).status_code] += 1

            asking = [asyncio.create_task(ask()) for _ in range(4)]
            before = await asyncio.to_thread(kill_runner, valet, "one")
            other = pid_of(valet.home, "two")
            await asyncio.to_thread(
                until, lambda: pid_of(valet.home, "one") not in (0, before), "it is started again"
            )
            answered = ends[200]
            async with asyncio.timeout(60):
                while ends[200] < answered + 12:  # noqa: ASYNC110  it is a count, and tells nobody
                    await asyncio.sleep(0.02)
            is_over.set()
            await asyncio.gather(*asking)
            assert pid_of(valet.home, "two") == other
        return ends

    ends = asyncio.run(scene())
    assert set(ends) == {200}


@pytest.mark.slow
def test_r14_it_is_restarted_later_each_time_then_given_up_and_a_reset_brings_it_back(
    valet: ValetProcess,
) -> None:
    for model in ("one", "two"):
        valet.post("/load", {"model": model})
    until(lambda: pid_of(valet.home, "one") != 0, "it runs")
    waits_s = []
    before = 0
    for _ in range(5):
        before = kill_runner(valet, "one")
        killed_s = time.monotonic()
        until(
            lambda before=before: pid_of(valet.home, "one") not in (0, before),  # type: ignore[misc]
            "it is started again",
            lambda: str(status(valet, "one")),
            patience_s=40,
        )
        waits_s.append(time.monotonic() - killed_s)
        until(lambda: status(valet, "one")["status"] == "ready", "it is ready")
    assert waits_s[0] < waits_s[2] < waits_s[4], waits_s
    assert waits_s[4] > 10
    kill_runner(valet, "one")
    until(lambda: "one" in failed(valet), "it is given up", lambda: str(status(valet, "one")))
    told = failed(valet)["one"]
    assert told["attempts"] == 6
    assert "6 times" in told["error"]
    assert told["status"] == status(valet, "one")["status"] == "failed"
    assert "one" in conditions(valet)["given_up"]
    assert len(valet.activity("runner_crashed")) == 5
    assert len(valet.activity("runner_given_up")) == 1
    assert metric(valet, "valet_runner_crashes_total", model="one") == 6
    assert metric(valet, "router_model_status", model="one", status="failed") == 1
    refused = valet.chat("one")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "load_failed")
    assert valet.chat("assistant").headers["x-valet-model"] == "two", "its route goes on"
    assert pid_of(valet.home, "one") == 0, "nobody starts it"
    reset = valet.router.post("/v1/models/one/reset")
    assert reset.status_code == 200, reset.text
    assert failed(valet) == {}
    assert "given_up" not in conditions(valet)
    assert valet.chat("one").json()["choices"][0]["message"]["content"] == REPLY
    assert valet.chat("assistant").headers["x-valet-model"] == "one"


def test_a_runner_that_is_killed_during_a_pause_is_not_started_in_it(valet: ValetProcess) -> None:
    assert valet.chat("cpu").status_code == 200
    valet.post("/load", {"model": "one"})
    hold = valet.post("/holds", {"owner": "renderer", "reason": "a frame"}, status=201)
    valet.wait_state("paused")
    assert pid_of(valet.home, "one") == 0
    before = kill_runner(valet, "cpu")
    until(lambda: pid_of(valet.home, "cpu") not in (0, before), "what needs no GPU is started again")
    assert pid_of(valet.home, "one") == 0
    assert valet.chat("cpu").status_code == 200
    valet.control.delete(f"/holds/{hold['id']}")
    valet.wait_state("running")
    assert set(valet.loaded()) >= {"one", "cpu"}


def test_a_runner_that_is_stopped_and_hangs_makes_504_of_requests_and_nothing_else_waits(
    home: Path, tiny_model: Path
) -> None:
    settings = {
        "games": {"enabled": False},
        "router": {"request_timeout_seconds": 5},
        "providers": {"local": local(home, tiny_model, {"one": [], "two": []})},
        "routes": {
            "both": {
                "candidates": [
                    {"provider": "local", "model": "one"},
                    {"provider": "local", "model": "two"},
                ]
            }
        },
    }
    with ValetProcess(home, settings) as valet:
        for model in ("one", "two"):
            valet.post("/load", {"model": model})
        hung = pid_of(home, "one")
        os.kill(hung, signal.SIGSTOP)
        try:
            answer = valet.chat("one")
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timed_out"), answer.text
            fallback = valet.chat("both")
            assert (fallback.status_code, fallback.headers["x-valet-model"]) == (200, "two")
            assert valet.chat("two").status_code == 200
        finally:
            os.kill(hung, signal.SIGCONT)
