"""Errors look as the clients of each dialect expect them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.web.wire import router_site
from tray_valet.core.dialects import Dialect
from tray_valet.core.errors import (
    InvalidJson,
    LoadFailed,
    NotSupported,
    Paused,
    ProviderUnreachable,
    QueueFull,
    TimedOut,
    UnknownModel,
    ValetError,
    VramExhausted,
)
from tray_valet.web.edge.errors import EdgeCode, ErrorType, HttpError
from tray_valet.web.relay.dialect_errors import (
    ANTHROPIC_TYPES,
    answer_at,
    answer_in,
    stream_error,
    unexpected_at,
)

PAUSED = Paused("Hades is running.", retry_after_s=41.2)
TOO_LARGE = HttpError(413, ErrorType.INVALID_REQUEST, EdgeCode.TOO_LARGE, "Too large.")
BAD_KEY = HttpError(401, ErrorType.AUTHENTICATION, EdgeCode.KEY_WRONG, "Wrong key.")
FOREIGN = HttpError(403, ErrorType.PERMISSION, EdgeCode.ORIGIN_REFUSED, "Not from there.")


def test_openai_keeps_the_form_of_both_apis() -> None:
    answer = answer_in(Dialect.OPENAI, PAUSED)
    assert answer.status == 503
    assert (b"retry-after", b"42") in answer.headers
    error = json.loads(answer.body)["error"]
    assert (error["message"], error["type"]) == ("Hades is running.", "unavailable_error")
    assert (error["code"], error["param"]) == ("paused", None)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidJson("x"), 400, "invalid_request_error"),
        (BAD_KEY, 401, "authentication_error"),
        (FOREIGN, 403, "permission_error"),
        (UnknownModel("x", param="model"), 404, "not_found_error"),
        (TOO_LARGE, 413, "request_too_large"),
        (QueueFull("x"), 429, "rate_limit_error"),
        (ValetError("x"), 500, "api_error"),
        (NotSupported("x"), 501, "invalid_request_error"),
        (ProviderUnreachable("x"), 502, "api_error"),
        (PAUSED, 503, "overloaded_error"),
        (VramExhausted("x", required_bytes=2**30, available_bytes=2**20), 503, "overloaded_error"),
        (LoadFailed("x"), 503, "api_error"),
        (TimedOut("x"), 504, "timeout_error"),
    ],
)
def test_anthropic_has_its_own_types(error: Any, status: int, kind: str) -> None:
    answer = answer_in(Dialect.ANTHROPIC, error)
    shape = json.loads(answer.body)
    assert (answer.status, shape["type"], shape["error"]["type"]) == (status, "error", kind)
    assert set(shape["error"]) >= {"message", "type", "param", "code"}


def test_every_type_has_a_name_at_anthropic() -> None:
    assert set(ANTHROPIC_TYPES) == set(ErrorType)


def test_ollamas_clients_get_a_sentence() -> None:
    shape = json.loads(answer_in(Dialect.OLLAMA, UnknownModel("No x.", remedy="Pull it.")).body)
    assert (shape["error"], shape["code"]) == ("No x. Pull it.", "model_not_found")


def test_what_does_not_fit_says_how_much_in_every_dialect() -> None:
    error = VramExhausted("x", required_bytes=3 * 2**20, available_bytes=2**20)
    for dialect in Dialect:
        text = answer_in(dialect, error).body
        assert b'"required_mb":3' in text, dialect
        assert b'"available_mb":1' in text, dialect


def test_a_stream_ends_in_its_own_terms() -> None:
    openai = stream_error("/v1/chat/completions", PAUSED)
    assert openai.startswith(b'data: {"error":{')
    assert openai.endswith(b"}\n\n")
    anthropic = stream_error("/v1/messages", PAUSED)
    assert anthropic.startswith(b'event: error\ndata: {"type":"error"')
    assert anthropic.endswith(b"}\n\n")
    responses = stream_error("/v1/responses", PAUSED)
    assert responses.startswith(b"event: error\ndata: ")
    told = json.loads(responses[19:])
    assert (told["type"], told["code"], told["message"]) == ("error", "paused", "Hades is running.")
    assert told["error"]["code"] == "paused", "openai-python raises for that alone"
    ollama = stream_error("/api/chat", PAUSED)
    assert ollama.count(b"\n") == 1
    assert ollama.endswith(b"}\n")
    assert json.loads(ollama)["error"] == "Hades is running."


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/v1/messages", lambda shape: shape["error"]["type"] == "not_found_error" and shape["type"]),
        ("/api/nothing", lambda shape: isinstance(shape["error"], str)),
        ("/nothing", lambda shape: shape["error"]["code"] == "path_not_found"),
    ],
)
def test_the_path_tells_the_dialect(path: str, read: Any) -> None:
    error = HttpError(404, ErrorType.NOT_FOUND, EdgeCode.PATH_NOT_FOUND, "There is nothing at that path.")
    assert read(json.loads(answer_at(path, error).body))


def test_a_mistake_of_ours_is_shaped_too() -> None:
    assert json.loads(unexpected_at("/v1/messages").body)["error"]["type"] == "api_error"
    assert isinstance(json.loads(unexpected_at("/api/chat").body)["error"], str)
    assert json.loads(unexpected_at("/v1/responses").body)["error"]["code"] == "internal"


async def test_unknown_paths_and_methods_answer_in_the_dialect_of_the_path() -> None:
    async with router_site() as site:
        reply = await site.call("GET", "/api/nothing")
        assert (reply.status, isinstance(reply.json["error"], str)) == (404, True)
        reply = await site.call("POST", "/api/tags", {})
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
        assert isinstance(reply.json["error"], str)
        reply = await site.call("GET", "/v1/messages/batches")
        assert (reply.status, reply.json["type"]) == (404, "error")


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"Host": "evil.example"}, 400, "invalid_request_error"),
        ({"Origin": "https://evil.example"}, 403, "permission_error"),
        ({"Content-Length": "99999999999"}, 413, "request_too_large"),
    ],
)
async def test_refusals_of_the_guard_are_shaped_for_the_path(
    headers: dict[str, str | None], status: int, kind: str
) -> None:
    async with router_site() as site:
        reply = await site.call("POST", "/v1/messages", {"model": "x"}, headers)
        assert (reply.status, reply.json["type"], reply.json["error"]["type"]) == (status, "error", kind)
        reply = await site.call("POST", "/api/chat", {"model": "x"}, headers)
        assert (reply.status, isinstance(reply.json["error"], str)) == (status, True)
        reply = await site.call("POST", "/v1/chat/completions", {"model": "x"}, headers)
        assert set(reply.json["error"]) >= {"message", "type", "param", "code"}
