"""The router over a real engine, as OpenAI's own client and as a plain HTTP client see it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.whole.test_game_cycle import local_provider
from tests.whole.valet_process import ValetProcess, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays with copies of /bin/sleep")
_ASKED: Any = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def valet(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ValetProcess]:
    home = tmp_path_factory.mktemp("router") / "home"
    settings = {
        "games": {"enabled": False},  # other tests play games on this machine
        "eviction": {"drain_seconds": 0},
        "providers": {"local": {**local_provider(home, tiny_model, "one", "two"), "first_port": 28400}},
        "routes": {
            "assistant": {"candidates": [{"provider": "local", "model": "one"}]},
            "two": {"candidates": [{"provider": "local", "model": "one"}]},
            "patient": {
                "candidates": [{"provider": "local", "model": "one"}],
                "when_paused": "wait",
                "wait_seconds": 20,
            },
        },
    }
    with ValetProcess(home, settings) as process:
        yield process


@pytest.fixture
def client(valet: ValetProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{str(valet.router.base_url).rstrip('/')}/v1", api_key="none", max_retries=0, timeout=30
    ) as one:
        yield one


def test_every_model_answers_to_its_names_unless_an_alias_has_one(
    valet: ValetProcess, client: openai.OpenAI
) -> None:
    assert {model.id for model in client.models.list()} == {"assistant", "two", "patient", "one", "local/two"}
    for name, real in (
        ("one", "one"),
        ("local/one", "one"),
        ("local/two", "two"),
        ("two", "one"),
        ("assistant", "one"),
    ):
        answer = client.chat.completions.with_raw_response.create(model=name, messages=_ASKED, max_tokens=4)
        assert answer.headers["x-valet-provider"] == "local"
        assert answer.headers["x-valet-model"] == real
        assert answer.headers["x-valet-reason"]
        assert answer.parse().choices[0].message.content
    assert client.models.retrieve("assistant").id == "assistant"
    for name in ("one", "local/one"):
        assert client.models.retrieve(name).id == "one", "the model, not an alias of it"


def test_a_streamed_answer_is_the_whole_one_piece_by_piece(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "one", "messages": _ASKED, "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    pieces = [
        chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True)
    ]
    assert len(pieces) > 4
    assert "".join(pieces) == whole


def test_an_unknown_model_is_404_with_what_was_probably_meant(client: openai.OpenAI) -> None:
    for name, meant in (("assistent", "assistant"), ("local/on", "local/one"), ("gpt-4o", "GET /v1/models")):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model=name, messages=_ASKED)
        error: Any = caught.value.body
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert meant in error["message"]


def test_a_request_of_megabytes_passes(valet: ValetProcess) -> None:
    body = {"padding": "x" * 8_000_000, "model": "one", "messages": _ASKED, "max_tokens": 1}
    assert valet.router.post("/v1/chat/completions", json=body).status_code == 200


def test_a_stream_that_a_pause_ends_is_an_error_for_the_client(
    valet: ValetProcess, client: openai.OpenAI
) -> None:
    valet.post("/load", {"model": "one"})
    stream = client.chat.completions.create(
        model="one", messages=_ASKED, stream=True, max_tokens=100_000, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    hold = valet.post("/holds", {"owner": "renderer", "reason": "a frame"}, status=201)
    with pytest.raises(openai.APIError) as caught:
        for _ in stream:
            pass
    assert "renderer" in str(caught.value)
    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model="one", messages=_ASKED)
    error: Any = refused.value.body
    assert (refused.value.status_code, error["type"], error["code"]) == (503, "unavailable_error", "paused")
    assert error["message"].startswith("Paused for renderer.")
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert valet.control.delete(f"/holds/{hold['id']}").status_code == 200
    valet.wait_state("running")
    assert set(valet.loaded()) >= {"one"}


def test_a_request_that_waits_at_the_gate_is_answered_after_the_pause(valet: ValetProcess) -> None:
    hold = valet.post("/holds", {"owner": "renderer"}, status=201)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(valet.chat, "patient", max_tokens=2)
        assert not wait([waiting], timeout=1).done, "it waits"
        valet.control.delete(f"/holds/{hold['id']}")
        assert waiting.result(60).status_code == 200


def test_a_client_that_leaves_frees_the_engine(valet: ValetProcess) -> None:
    body = {"model": "one", "messages": _ASKED, "stream": True, "max_tokens": 100_000, "ignore_eos": True}
    with valet.router.stream("POST", "/v1/chat/completions", json=body) as stream:
        next(stream.iter_lines())
    until(lambda: valet.get("/status")["in_flight"] == 0, "nothing is in flight")
