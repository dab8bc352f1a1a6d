"""Errors in the dialect that a client speaks: OpenAI's, Anthropic's or Ollama's, whole or at a stream's end.

Decides: the form of an error for each dialect. Must not: decide status or words (`errors.py`, the error).

All three keep `code` (ours) beside what their own clients read. Sources: OpenAI's API reference (error
object), Anthropic's API reference, “Errors” (types by status, `event: error` in streams); Ollama's
`api/types.go` (StatusError) and `api/client.go`: `error` is a string there, also in a line of a stream.

What the clients make of it (openai-python and anthropic-sdk-python, `_base_client.py`): both send a request
again, twice by default, after 408, 409, 429 and 5xx; they wait as `Retry-After` says when that is at most
60 seconds, else half a second to eight; `x-should-retry` would overrule them. Ollama's client never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tray_valet.core.dialects import RESPONSES, Dialect, dialect_of
from tray_valet.core.errors import ValetError
from tray_valet.web.edge.errors import (
    Answer,
    EdgeCode,
    ErrorType,
    HttpError,
    answer_for,
    error_object,
    mistake_of_ours,
)
from tray_valet.web.edge.json_faults import MALFORMED

Failure = ValetError | HttpError

ANTHROPIC_TYPES: Mapping[ErrorType, str] = {
    ErrorType.INVALID_REQUEST: "invalid_request_error",
    ErrorType.AUTHENTICATION: "authentication_error",
    ErrorType.PERMISSION: "permission_error",
    ErrorType.NOT_FOUND: "not_found_error",
    ErrorType.CONFLICT: "invalid_request_error",
    ErrorType.RATE_LIMIT: "rate_limit_error",
    ErrorType.UNAVAILABLE: "overloaded_error",
    ErrorType.TIMEOUT: "timeout_error",
    ErrorType.SERVER: "api_error",
}
ANTHROPIC_TOO_LARGE = "request_too_large"


def answer_in(dialect: Dialect, error: Failure) -> Answer:
    """The whole answer for a failure: status and headers as everywhere, the body in that dialect."""
    usual = answer_for(error)
    if dialect is Dialect.OPENAI:
        return usual
    return msgspec.structs.replace(usual, body=msgspec.json.encode(error_body(dialect, error)))


def answer_at(path: str, error: Failure) -> Answer:
    """The whole answer for a failure, in the dialect of the path that was asked."""
    return answer_in(dialect_of(path), error)


def unexpected_at(path: str) -> Answer:
    """The answer for a mistake of ours, in the dialect of the path."""
    return answer_at(path, mistake_of_ours())


def error_body(dialect: Dialect, error: Failure) -> dict[str, Any]:
    """The JSON value of a failure in that dialect."""
    inner = error_object(error)
    if dialect is Dialect.ANTHROPIC:
        return {
            "type": "error",
            "error": {**inner, "type": _anthropic_type(error, inner)},
            "request_id": None,
        }
    if dialect is Dialect.OLLAMA:
        return {"error": inner.pop("message"), **inner}
    return {"error": inner}


def stream_error(path: str, error: Failure) -> bytes:
    """The last event (or line) of a stream at a path that must end because of the failure."""
    return framed_error(path, msgspec.json.encode(error_body(dialect_of(path), error)))


def framed_error(path: str, body: bytes) -> bytes:
    """The body of an error (one JSON value) as the last event or line of a stream at a path."""
    dialect, data = dialect_of(path), b" ".join(body.split(b"\n"))
    if dialect is Dialect.OLLAMA:
        return data + b"\n"
    if path == RESPONSES:
        data = _responses_event(data)
    name = b"" if dialect is Dialect.OPENAI and path != RESPONSES else b"event: error\n"
    return b"%bdata: %b\n\n" % (name, data)


def _responses_event(data: bytes) -> bytes:
    """As the Responses API has it, with `error` beside: openai-python raises for that alone."""
    try:
        told = msgspec.json.decode(data, type=dict[str, Any])
    except MALFORMED:
        return data
    inner = told.get("error")
    known = inner if isinstance(inner, dict) else {}
    own = {name: known.get(name) for name in ("code", "message", "param")}
    return msgspec.json.encode({"type": "error", **own, **told})


def _anthropic_type(error: Failure, inner: dict[str, Any]) -> str:
    if isinstance(error, HttpError) and error.code is EdgeCode.TOO_LARGE:
        return ANTHROPIC_TOO_LARGE
    return ANTHROPIC_TYPES[ErrorType(inner["type"])]
