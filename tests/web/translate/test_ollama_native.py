"""Translated requests at an Ollama (a stand-in, over real HTTP): what they load, and what comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from tests.standins.ollama import OllamaStandin
from tests.web.native_words import ASK, CHAT, EMBEDDINGS, fields_of
from tray_valet.providers.ollama_times import unix_s
from tray_valet.web.translate.ollama_native import native_exchange
from tray_valet.web.translate.ollama_overrides import native_overrides

OWN = ("id", "created")


@pytest.fixture(scope="module")
def running_standin() -> Iterator[OllamaStandin]:
    with OllamaStandin() as standin:
        yield standin


@pytest.fixture
def standin(running_standin: OllamaStandin) -> OllamaStandin:
    running_standin.reset()
    return running_standin


@pytest.fixture
def client(standin: OllamaStandin) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=standin.url, trust_env=False, timeout=60) as client:
        yield client


def first_model(client: httpx.Client) -> str:
    """One that is on disk, not in a cloud."""
    told = client.get("/api/tags").json()["models"]
    return str(next(m["name"] for m in told if "completion" in m["capabilities"] and "remote_model" not in m))


def translated(
    client: httpx.Client, path: str, context_length: int | None, keep_alive_s: float | None, **asked: Any
) -> tuple[int, bytes]:
    """Ask through the translation; status and bytes as the client would get them."""
    made = native_exchange(
        path,
        fields_of(**asked),
        model=asked["model"],
        context_length=context_length,
        keep_alive_s=keep_alive_s,
    )
    assert made is not None
    with client.stream("POST", made.path, content=made.body) as answer:
        if answer.status_code != 200:
            return answer.status_code, made.error(answer.status_code, answer.read())
        told = b"".join(made.feed(chunk) for chunk in answer.iter_bytes())
        return 200, told + made.finish()


def loaded(client: httpx.Client) -> dict[str, Any]:
    (model,) = client.get("/api/ps").json()["models"]
    return dict(model)


def runner_pids(client: httpx.Client) -> list[int]:
    return list(client.get("/_standin").json()["runners"].values())


def pid_of_runner(standin: OllamaStandin) -> int:
    with httpx.Client(base_url=standin.url, trust_env=False, timeout=60) as other:
        (pid,) = runner_pids(other)
    return pid


def left_s(model: dict[str, Any]) -> float:
    at_s = unix_s(model["expires_at"])
    assert at_s is not None
    return at_s - time.time()


def test_context_and_time_to_live_are_set_and_the_next_request_loads_nothing(client: httpx.Client) -> None:
    model = first_model(client)
    status, _ = translated(client, CHAT, 2048, 7200.0, model=model, messages=ASK, max_tokens=2)
    assert status == 200
    first = runner_pids(client)
    assert len(first) == 1
    assert loaded(client)["context_length"] == 2048
    assert 7000 < left_s(loaded(client)) <= 7200
    translated(client, CHAT, 2048, 7200.0, model=model, messages=ASK, max_tokens=2, stream=True)
    assert runner_pids(client) == first


def test_the_same_over_ollamas_own_openai_route_would_load_again(client: httpx.Client) -> None:
    """Why requests are translated at all."""
    model = first_model(client)
    translated(client, CHAT, 2048, None, model=model, messages=ASK, max_tokens=2)
    before = runner_pids(client)
    assert client.post(CHAT, json={"model": model, "messages": ASK, "max_tokens": 2}).status_code == 200
    assert runner_pids(client) != before
    assert loaded(client)["context_length"] != 2048


def test_a_native_clients_request_gets_them_too(client: httpx.Client) -> None:
    model = first_model(client)
    asked = fields_of(model=model, messages=ASK, stream=False, options={"num_predict": 2})
    body = msgspec.json.encode(native_overrides("/api/chat", asked, 1024, 900.0))
    assert client.post("/api/chat", content=body).json()["done"] is True
    assert loaded(client)["context_length"] == 1024
    assert 800 < left_s(loaded(client)) <= 900


def test_a_time_to_live_of_zero_answers_and_then_unloads(client: httpx.Client) -> None:
    model = first_model(client)
    status, told = translated(client, CHAT, None, 0.0, model=model, messages=ASK, max_tokens=2)
    assert status == 200
    assert msgspec.json.decode(told)["choices"][0]["message"]["content"]
    deadline_s = time.monotonic() + 45
    while client.get("/api/ps").json()["models"]:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def shape(value: Any) -> Any:
    """Names and types, and the values that both answers must share."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items() if name not in OWN}
    return [shape(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("limit", [None, 3])
def test_a_whole_chat_is_ollamas_own_openai_answer(client: httpx.Client, limit: int | None) -> None:
    asked = {"model": first_model(client), "messages": ASK, "max_tokens": limit}
    own = client.post(CHAT, json=asked).json()
    assert own["choices"][0]["message"]["content"]
    _, told = translated(client, CHAT, None, None, **asked)
    assert shape(msgspec.json.decode(told)) == shape(own)
    assert set(msgspec.json.decode(told)) == set(own)


def test_a_streamed_chat_is_ollamas_own_openai_stream(client: httpx.Client) -> None:
    def events(stream: bytes) -> list[Any]:
        parts = [part.removeprefix(b"data: ") for part in stream.split(b"\n\n") if part]
        return [part if part == b"[DONE]" else shape(msgspec.json.decode(part)) for part in parts]

    asked = {"model": first_model(client), "messages": ASK, "stream": True}
    asked["stream_options"] = {"include_usage": True}
    own = client.post(CHAT, json=asked).content
    _, told = translated(client, CHAT, None, None, **asked)
    assert events(told) == events(own)
    assert events(told)[-1] == b"[DONE]"


def test_vectors_are_ollamas_own(client: httpx.Client) -> None:
    asked = {"model": first_model(client), "input": ["a", "b"]}
    own = client.post(EMBEDDINGS, json=asked).json()
    assert len(own["data"]) == 2
    _, told = translated(client, EMBEDDINGS, 512, None, **asked)
    assert msgspec.json.decode(told) == own


def test_an_unknown_model_is_said_as_openai_says_it(client: httpx.Client) -> None:
    status, told = translated(client, CHAT, 512, None, model="no-such", messages=ASK)
    assert status == 404
    assert msgspec.json.decode(told)["error"]["code"] == "model_not_found"


def test_a_runner_that_dies_in_mid_stream_is_told(client: httpx.Client, standin: OllamaStandin) -> None:
    standin.set(answer_tokens=100_000, tokens_per_s=200)
    model = first_model(client)
    asked = fields_of(model=model, messages=ASK, stream=True)
    made = native_exchange(CHAT, asked, model=model, context_length=None, keep_alive_s=None)
    assert made is not None
    told = b""
    with client.stream("POST", made.path, content=made.body) as answer:
        for chunk in answer.iter_bytes():
            if not told:
                os.kill(pid_of_runner(standin), signal.SIGKILL)
            told += made.feed(chunk)
    told += made.finish()
    assert "runner" in made.failed or "EOF" in made.failed
    assert b'"error"' in told.split(b"\n\n")[-2]
