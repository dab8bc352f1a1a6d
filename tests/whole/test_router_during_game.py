"""What goes on serving during a game, and what does not: the held GPU gets nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.providers.test_openai import Cloud, cloud
from tests.standins.ollama import OllamaStandin
from tests.whole.router_homes import local, metric, pid_of, router_url, write_secrets
from tests.whole.valet_process import ValetProcess, engine_pids, until
from tray_valet.engine.tiny_model import REPLY

__all__ = ["cloud"]  # a fixture
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep"),
    pytest.mark.timeout(400),  # runners of idle priority have the CPU only when nobody else wants it
]
ASK: Any = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture
def standin() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "big:latest=40") as running:
        yield running


@pytest.fixture
def valet(tmp_path: Path, tiny_model: Path, standin: OllamaStandin, cloud: Cloud) -> Iterator[ValetProcess]:
    home = tmp_path / "home"
    provider = local(home, tiny_model, {"one": ["-ngl", "99", "--context-shift"], "cpu": [], "two": []})
    provider["models"]["cpu"]["cpu_only"] = True
    one, big = {"provider": "local", "model": "one"}, {"provider": "ollama", "model": "big"}
    on_cpu = {"provider": "local", "model": "cpu"}
    elsewhere = {"provider": "cloud", "model": "gpt-small"}
    settings = {
        "eviction": {"drain_seconds": 0.2},
        "providers": {
            "local": provider,
            "ollama": {"kind": "ollama", "url": standin.url},
            "cloud": {"kind": "openai", "url": cloud.url, "api_key": "keyring:cloud", "local": False},
        },
        "routes": {
            "to-cpu": {"candidates": [one, big, on_cpu, elsewhere], "when_paused": "next"},
            "to-cpu-in-short": {
                "candidates": [one, big, {**on_cpu, "set": {"max_tokens": 8}}],
                "when_paused": "next",
            },
            "to-cloud": {"candidates": [one, big, elsewhere], "when_paused": "next"},
            "to-nobody": {"candidates": [one, big], "when_paused": "next"},
            "waits-a-second": {"candidates": [one], "when_paused": "wait", "wait_seconds": 1},
        },
    }
    with ValetProcess(home, settings, environ=write_secrets(home, {"cloud": "sk-right"})) as process:
        yield process
    assert engine_pids(home) == []
    assert "Traceback" not in (home / "logs" / "tray-valet.log").read_text()


def is_idle(pid: int) -> bool:
    """Whether every thread of it has idle CPU and I/O priority."""
    found = set()
    for tid in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError, subprocess.CalledProcessError):  # a thread may end meanwhile
            io = subprocess.run(["ionice", "-p", tid], capture_output=True, check=True, text=True)
            found.add((os.sched_getscheduler(int(tid)), io.stdout.strip()))
    return found == {(os.SCHED_IDLE, "idle")}


def threads_asked(pid: int) -> int | None:
    """What `--threads` says."""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return int(arguments[arguments.index(b"--threads") + 1]) if b"--threads" in arguments else None


def test_during_a_game_nothing_is_loaded_onto_the_held_gpu_whoever_asks(
    valet: ValetProcess, standin: OllamaStandin
) -> None:
    valet.post("/load", {"model": "one"})
    standin.load("big", keep_alive=300)
    valet.play()
    valet.wait_state("paused")
    loads_before = len(standin.calls("/api/generate"))
    asks: list[tuple[str, dict[str, Any]]] = [
        (
            path,
            {"model": model, "messages": ASK, "prompt": "Hi", "input": "Hi", "query": "a", "max_tokens": 4},
        )
        for model in ("one", "two", "local/one", "big", "ollama/big", "to-nobody")
        for path in (
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/responses",
            "/v1/embeddings",
            "/v1/messages",
        )
    ]
    asks += [
        (f"/api/{what}", {"model": "big", "prompt": "Hi", "input": "Hi", "messages": ASK})
        for what in ("chat", "generate", "embed")
    ]
    asks += [
        ("/api/generate", {"model": "big"}),
        ("/v1/rerank", {"model": "one", "query": "a", "documents": ["b"]}),
    ]
    asks += [("/v1/messages/count_tokens", {"model": "one", "messages": ASK})]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda ask: valet.router.post(ask[0], json=ask[1]), asks))
    for (path, asked), answer in zip(asks, answers, strict=True):
        assert answer.status_code == 503, f"{path} {asked['model']}: {answer.status_code} {answer.text}"
        assert "Hades" in answer.text
        assert answer.headers["retry-after"]
    assert engine_pids(valet.home) == []
    assert standin.state()["runners"] == {}
    assert len(standin.calls("/api/generate")) == loads_before
    assert standin.calls("/v1/chat/completions") == []
    assert valet.activity("model_reloaded_during_pause") == []


def test_what_needs_no_gpu_answers_in_the_order_of_the_route(valet: ValetProcess, cloud: Cloud) -> None:
    assert valet.chat("to-cloud").headers["x-valet-model"] == "one"
    game = valet.play()
    valet.wait_state("paused")
    on_cpu = valet.chat("to-cpu")
    assert on_cpu.json()["choices"][0]["message"]["content"] == REPLY
    assert (on_cpu.headers["x-valet-model"], on_cpu.headers["x-valet-reason"]) == ("cpu", "fallback: paused")
    elsewhere = valet.chat("to-cloud")
    assert (elsewhere.headers["x-valet-provider"], elsewhere.status_code) == ("cloud", 200)
    assert elsewhere.headers["x-valet-reason"] == "fallback: paused"
    assert cloud.asked.count("/v1/chat/completions") == 1
    with openai.OpenAI(base_url=f"{router_url(valet)}/v1", api_key="none", max_retries=0) as client:
        assert client.chat.completions.create(model="to-cloud", messages=ASK).choices[0].message.content
    refused = valet.chat("waits-a-second")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "paused")
    assert pid_of(valet.home, "one") == 0
    assert metric(valet, "valet_requests_rerouted_total") >= 3
    valet.stop(game)
    valet.wait_state("running")
    assert valet.chat("to-cloud").headers["x-valet-model"] == "one", "back to the first"
    assert valet.chat("to-cpu").headers["x-valet-model"] == "one"


def test_a_cpu_runner_of_the_game_is_idle_with_few_threads_and_is_quick_again_after_it(
    valet: ValetProcess,
) -> None:
    game = valet.play()
    valet.wait_state("paused")
    assert valet.chat("to-cpu").status_code == 200
    started_in_it = pid_of(valet.home, "cpu")
    assert is_idle(started_in_it)
    assert threads_asked(started_in_it) == max(1, (os.cpu_count() or 1) // 4)
    valet.stop(game)
    valet.wait_state("running")
    assert pid_of(valet.home, "cpu") == started_in_it, "until it is used again"
    answer = valet.chat("cpu")
    assert answer.json()["choices"][0]["message"]["content"] == REPLY
    quick = pid_of(valet.home, "cpu")
    assert quick != started_in_it
    assert not is_idle(quick)
    assert threads_asked(quick) != 1 or (os.cpu_count() or 1) == 1
    assert [m for m in engine_pids(valet.home) if m == started_in_it] == []


def test_an_answer_on_the_cpu_goes_through_the_games_start_and_end(valet: ValetProcess) -> None:
    body = {"model": "cpu", "messages": ASK, "stream": True, "max_tokens": 3500, "ignore_eos": True}
    seen = threading.Event()
    ends: list[str] = []

    def read() -> None:
        with valet.router.stream("POST", "/v1/chat/completions", json=body, timeout=300) as answer:
            for line in answer.iter_lines():
                if line:
                    seen.set()
                    ends.append(line)

    reader = threading.Thread(target=read)
    reader.start()
    assert seen.wait(60)
    game = valet.play()
    valet.wait_state("paused")
    valet.stop(game)
    valet.wait_state("running")
    reader.join(300)
    assert ends[-1] == "data: [DONE]"
    assert not any('"error"' in end for end in ends)


def test_requests_that_queue_or_stream_when_the_game_starts_do_as_their_route_says(
    valet: ValetProcess,
) -> None:
    valet.post("/load", {"model": "one"})  # one place: the second waits in line

    def ask(model: str, **fields: Any) -> Any:
        return valet.chat(model, **fields)

    with ThreadPoolExecutor(4) as pool:
        # Endless where it begins: however late the pause comes, it has not been answered by then.
        in_flight = pool.submit(ask, "to-cpu-in-short", max_tokens=1_000_000, ignore_eos=True)
        until(lambda: metric(valet, "router_active_requests", model="one") == 1, "one is in flight")
        falls = pool.submit(ask, "to-cpu", max_tokens=4)
        refused = pool.submit(ask, "one", max_tokens=4)
        until(lambda: metric(valet, "router_queue_depth", model="one") == 2, "two are in line")
        valet.play()
        valet.wait_state("paused")
        assert falls.result(300).headers["x-valet-model"] == "cpu"
        assert refused.result(60).status_code == 503
        assert "Hades" in refused.result().text
        carried = in_flight.result(300)
        assert carried.status_code == 200, carried.text
        assert carried.headers["x-valet-model"] == "cpu", "nothing had gone out yet, so the next one answers"
    until(lambda: metric(valet, "router_queue_depth") == 0, "nobody waits")


def test_a_request_that_waits_longer_than_its_route_allows_is_told_so_in_time(valet: ValetProcess) -> None:
    valet.play()
    valet.wait_state("paused")
    refused = valet.chat("waits-a-second")
    assert refused.status_code == 503
    assert 0.9 < refused.elapsed.total_seconds() < 60
    assert int(refused.headers["retry-after"]) >= 1
    assert "Hades" in refused.json()["error"]["message"]
