"""Streams through the router: unbuffered, given up when their client leaves, ended properly if they must."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from tests.standins.ollama import OllamaStandin
from tests.whole.router_homes import busy_slots, local, pid_of, request_lines, router_url
from tests.whole.valet_process import ValetProcess, send, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
ASK: Any = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def standin() -> Iterator[OllamaStandin]:
    with OllamaStandin("--model", "big:latest=40", "--model", "other:latest=8") as running:
        yield running


@pytest.fixture(scope="module")
def valet(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, standin: OllamaStandin
) -> Iterator[ValetProcess]:
    home = tmp_path_factory.mktemp("streams") / "home"
    endless = ["--ignore-eos", "--context-shift", "--slots"]
    settings = {
        "games": {"enabled": False},
        "eviction": {"drain_seconds": 0.2},
        "providers": {
            "local": local(home, tiny_model, {"endless": endless}),
            "ollama": {"kind": "ollama", "url": standin.url},
        },
        "routes": {
            "both": {
                "candidates": [
                    {"provider": "ollama", "model": "big"},
                    {"provider": "ollama", "model": "other"},
                ]
            }
        },
    }
    with ValetProcess(home, settings) as process:
        yield process
    assert "Traceback" not in (home / "logs" / "tray-valet.log").read_text()


@pytest.fixture(autouse=True)
def quick_and_empty(standin: OllamaStandin, valet: ValetProcess) -> None:
    standin.reset()
    until(lambda: valet.get("/status")["in_flight"] == 0, "nothing is in flight")
    until(lambda: not {"big:latest", "other:latest"} & set(valet.loaded()), "the valet sees that all is gone")


def body(model: str, *, is_stream: bool, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": ASK, "stream": is_stream, "max_tokens": 1_000_000, **fields}


# -- unbuffered ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_r7_each_piece_arrives_when_the_engine_makes_it(
    valet: ValetProcess, standin: OllamaStandin, path: str
) -> None:
    standin.load("big", keep_alive=300)
    standin.set(tokens_per_s=2, answer_tokens=10)
    asked = {"model": "big", "messages": ASK, "stream": True}
    with valet.router.stream("POST", path, json=asked) as answer:
        times_s = [time.monotonic() for line in answer.iter_lines() if line.strip()]
    assert len(times_s) >= 10
    # The engine takes 4.5 s from the first piece to the tenth; a router that gathers them takes none.
    assert times_s[9] - times_s[0] > 1.2
    gaps_s = [after - before for before, after in itertools.pairwise(times_s[:10])]
    assert sum(gap_s > 0.08 for gap_s in gaps_s) >= 4, gaps_s


# -- the client leaves -----------------------------------------------------------------------------------


def leave(valet: ValetProcess, path: str, asked: dict[str, Any], is_there: Any) -> None:
    """Ask over a socket of our own, wait until the engine is at it, and hang up."""
    data = json.dumps(asked).encode()
    url = httpx.URL(router_url(valet))
    with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        until(is_there, "the engine is at it")


@pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages"])
def test_r8_an_engine_stops_when_the_client_has_gone(valet: ValetProcess, path: str, is_stream: bool) -> None:
    asked = body("endless", is_stream=is_stream, prompt="Tiny")
    valet.post("/load", {"model": "endless"})
    leave(valet, path, asked, lambda: busy_slots(valet, "endless") == 1)
    # By itself it would go on for ever. How soon it stops is seen where no other program takes the CPU.
    until(lambda: busy_slots(valet, "endless") == 0, "the engine stops")
    until(lambda: valet.get("/status")["in_flight"] == 0, "nothing is in flight")


@pytest.mark.parametrize(
    ("path", "is_stream"),
    [("/v1/chat/completions", True), ("/v1/chat/completions", False), ("/api/chat", True)],
)
def test_r8_also_before_the_first_byte(
    valet: ValetProcess, standin: OllamaStandin, path: str, is_stream: bool
) -> None:
    standin.load("big", keep_alive=300)
    standin.set(hang=[path])
    before = standin.state()["aborted"]
    leave(valet, path, body("big", is_stream=is_stream), lambda: len(standin.calls(path)) == 1)
    until(lambda: standin.state()["aborted"] == before + 1, "it is told")
    until(lambda: request_lines(valet.home)[-1]["outcome"] == "client_left", "and it is noted so")


def test_a_client_that_leaves_while_it_waits_in_line_is_never_sent_on(
    valet: ValetProcess, standin: OllamaStandin
) -> None:
    standin.set(load_s=6)  # it is seen long before that the client has gone
    asked = body("big", is_stream=True)
    leave(valet, "/v1/chat/completions", asked, lambda: len(standin.calls("/api/generate")) >= 1)
    until(lambda: valet.get("/status")["in_flight"] == 0, "nothing is in flight")
    assert valet.chat("big", max_tokens=2).status_code == 200
    assert len(standin.calls("/v1/chat/completions")) == 1, "only the one that stayed"


# -- the engine goes -------------------------------------------------------------------------------------


def test_a_killed_runner_is_an_error_for_anthropics_client(valet: ValetProcess) -> None:
    with anthropic.Anthropic(base_url=router_url(valet), api_key="none", max_retries=0) as client:
        stream = client.messages.create(model="endless", messages=ASK, max_tokens=1_000_000, stream=True)
        events = iter(stream)
        next(events)
        send(pid_of(valet.home, "endless"), signal.SIGKILL)
        with pytest.raises(anthropic.APIStatusError) as broken:
            for _ in events:
                pass
    told: Any = broken.value.body
    assert told["type"] == "error"
    assert "local" in told["error"]["message"]
    until(lambda: pid_of(valet.home, "endless") != 0, "it comes back")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses"])
def test_a_killed_runner_is_an_error_event_on_openais_other_paths(valet: ValetProcess, path: str) -> None:
    asked = {"model": "endless", "prompt": "Tiny", "input": "Hi", "stream": True, "max_tokens": 1_000_000}
    with valet.router.stream("POST", path, json=asked) as answer:
        assert answer.status_code == 200
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        send(pid_of(valet.home, "endless"), signal.SIGKILL)
        *_, last = lines
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_failed"
    until(lambda: pid_of(valet.home, "endless") != 0, "it comes back")


def test_a_killed_ollama_is_an_error_for_its_client_and_for_openais(
    valet: ValetProcess, standin: OllamaStandin
) -> None:
    standin.set(tokens_per_s=50, answer_tokens=100_000)
    native = ollama.Client(host=router_url(valet)).chat("big", messages=ASK, stream=True)
    with openai.OpenAI(base_url=f"{router_url(valet)}/v1", api_key="none", max_retries=0) as client:
        other = client.chat.completions.create(model="other", messages=ASK, stream=True)
        next(native)
        next(iter(other))
        standin.kill()
        try:
            with pytest.raises(ollama.ResponseError) as cut:
                list(native)
            with pytest.raises(openai.APIError) as broken:
                list(other)
            assert "ollama" in cut.value.error
            assert broken.value.code == "upstream_failed"
            gone = valet.chat("big")
            assert gone.status_code == 502
            assert gone.json()["error"]["code"] == "provider_unreachable"
        finally:
            standin.start()
    until(lambda: valet.chat("big", max_tokens=2).status_code == 200, "it serves again")


def test_what_fails_before_the_first_byte_goes_to_the_next_candidate(
    valet: ValetProcess, standin: OllamaStandin
) -> None:
    for is_stream in (False, True):
        standin.reset()
        standin.set(fail={"/v1/chat/completions": 500})
        answer = valet.router.post("/v1/chat/completions", json=body("both", is_stream=is_stream))
        assert answer.status_code == 502, "both failed"
        asked = [call["body"]["model"] for call in standin.calls("/v1/chat/completions")]
        assert asked == ["big:latest", "other:latest"]


# -- signs of life ---------------------------------------------------------------------------------------


def test_a_stream_is_told_to_wait_while_its_model_loads(valet: ValetProcess, standin: OllamaStandin) -> None:
    standin.set(load_s=8)
    with valet.router.stream("POST", "/v1/chat/completions", json=body("big", is_stream=True)) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines[0].startswith(":"), "a comment, which every client passes over"
    assert lines[-1] == "data: [DONE]"
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert all("error" not in event for event in data)


def test_openais_client_does_not_time_out_while_a_model_loads(
    valet: ValetProcess, standin: OllamaStandin
) -> None:
    standin.set(load_s=11)
    with openai.OpenAI(
        base_url=f"{router_url(valet)}/v1", api_key="none", max_retries=0, timeout=9
    ) as client:
        stream = client.chat.completions.create(model="big", messages=ASK, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def test_a_load_that_fails_after_a_sign_of_life_ends_the_stream_with_an_error(
    valet: ValetProcess, standin: OllamaStandin
) -> None:
    standin.set(load_s=3.5, load_error="llama runner process has terminated: exit status 2")
    with valet.router.stream("POST", "/v1/chat/completions", json=body("big", is_stream=True)) as answer:
        lines = [line for line in answer.iter_lines() if line]
    if lines[0].startswith(":"):
        assert answer.status_code == 200
        error = json.loads(lines[-1].removeprefix("data: "))["error"]
    else:
        error = json.loads("".join(lines))["error"]
    assert error["code"] == "load_failed", error
    assert "terminated" in error["message"]


def test_a_pause_that_comes_while_a_model_loads_ends_the_wait(
    valet: ValetProcess, standin: OllamaStandin
) -> None:
    standin.set(load_s=30)
    ends: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: ends.append(valet.chat("big")))
    asking.start()
    until(lambda: len(standin.calls("/api/generate")) >= 1, "it loads")
    hold = valet.post("/holds", {"owner": "renderer", "reason": "a frame"}, status=201)
    asking.join(30)
    valet.control.delete(f"/holds/{hold['id']}")
    valet.wait_state("running")
    [answer] = ends
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "paused")
    assert standin.state()["runners"] == {}
