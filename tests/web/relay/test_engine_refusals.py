"""Refusals of engines: their words, in the form that the client's dialect has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.web.fake_valet import FakeValet
from tests.web.raw_engine import raw_engine
from tests.web.wire import router_site
from tray_valet.core.dialects import CHAT, MESSAGES, Dialect
from tray_valet.web.relay.engine_refusals import refusal_in, sentence_in
from tray_valet.web.relay.relay import Relay

LLAMA_SERVER = (
    b'{"error":{"code":400,"message":"request (100005 tokens) exceeds the available context size",'
    b'"type":"exceed_context_size_error","n_prompt_tokens":100005,"n_ctx":2048}}'
)
OPENAI = b'{"error":{"message":"no","type":"invalid_request_error","param":"x","code":null}}'
ANTHROPIC = b'{"type":"error","error":{"type":"invalid_request_error","message":"no"},"request_id":"r"}'
OLLAMA = b'{"error":"no"}'


def _in(dialect: Dialect, status: int, body: bytes) -> Any:
    return json.loads(refusal_in(dialect, status, body, "local"))


@pytest.mark.parametrize(
    ("dialect", "body"), [(Dialect.OPENAI, OPENAI), (Dialect.ANTHROPIC, ANTHROPIC), (Dialect.OLLAMA, OLLAMA)]
)
def test_one_that_has_the_form_stays_as_it_was_written(dialect: Dialect, body: bytes) -> None:
    assert refusal_in(dialect, 400, body, "local") is body


def test_llama_server_s_in_openai_s_form() -> None:
    assert _in(Dialect.OPENAI, 400, LLAMA_SERVER) == {
        "error": {
            "message": "request (100005 tokens) exceeds the available context size",
            "type": "exceed_context_size_error",
            "param": None,
            "code": "context_length_exceeded",
            "n_prompt_tokens": 100005,
            "n_ctx": 2048,
        }
    }


def test_llama_server_s_in_anthropic_s_form() -> None:
    told = _in(Dialect.ANTHROPIC, 400, LLAMA_SERVER)
    assert (told["type"], told["request_id"]) == ("error", None)
    assert told["error"]["type"] == "invalid_request_error"
    assert told["error"]["message"].startswith("request (100005 tokens)")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (501, "invalid_request_error"),
    ],
)
def test_anthropic_s_type_follows_the_status(status: int, kind: str) -> None:
    assert _in(Dialect.ANTHROPIC, status, LLAMA_SERVER)["error"]["type"] == kind


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (LLAMA_SERVER, "request (100005 tokens) exceeds the available context size"),
        (OLLAMA, "no"),
        (b'{"object":"error","message":"too long","type":"BadRequestError","code":400}', "too long"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body"],"msg":"field required"}]}', ""),
        (b"model is loading", "model is loading"),
        (b"<html><body>Bad gateway</body></html>", ""),
        (b'{"error":{"message":"d\xe9faut"}}', ""),
        (b'{"error":', ""),
        (b"[1]", ""),
        (b"", ""),
        (b"x" * 9000, "x" * 500),
    ],
)
def test_the_sentence_is_found_in_any_form(body: bytes, sentence: str) -> None:
    assert sentence_in(body) == sentence
    expected = sentence or "local answered 400."
    assert _in(Dialect.OPENAI, 400, body)["error"]["message"] == expected
    assert _in(Dialect.ANTHROPIC, 400, body)["error"]["message"] == expected
    assert _in(Dialect.OLLAMA, 400, body)["error"] == expected


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_reads_it_as_its_own(path: str, stream: bool) -> None:
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    valet = FakeValet()
    async with raw_engine([head % len(LLAMA_SERVER) + LLAMA_SERVER]) as engine:
        valet.candidates = [("local", engine.url), ("other", engine.url)]
        async with router_site(valet, relay=Relay(valet)) as site:
            reply = await site.call("POST", path, {"model": "llama3", "messages": [], "stream": stream})
    dialect = Dialect.ANTHROPIC if path == MESSAGES else Dialect.OPENAI
    assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
    assert reply.json == _in(dialect, 400, LLAMA_SERVER)
    assert reply.headers["x-valet-provider"] == "local"
    assert len(engine.requests) == 1, "another candidate is not asked for what is wrong with the request"


async def test_messages_without_messages_is_the_client_s_mistake() -> None:
    """llama-server's answer to that is 500."""
    async with router_site(FakeValet()) as site:
        for path in (MESSAGES, MESSAGES + "/count_tokens"):
            reply = await site.call("POST", path, {"model": "llama3", "max_tokens": 3})
            assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")
            assert "messages" in reply.json["error"]["message"]
