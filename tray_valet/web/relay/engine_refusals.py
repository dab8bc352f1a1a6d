"""An engine's refusal, in the dialect that its client speaks.

Decides: what of a refusal is its sentence, and the form around it. Must not: change the status, or a refusal
that has the right form already.

Engines refuse in forms of their own: llama-server as OpenAI does, but for a number as `code`, also at
Anthropic's path; vLLM without `error` around it; FastAPI with `detail`; some in plain text. Clients read
that of their dialect only.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tray_valet.core.dialects import Dialect
from tray_valet.web.edge.errors import ErrorType
from tray_valet.web.edge.json_faults import MALFORMED
from tray_valet.web.relay.dialect_errors import ANTHROPIC_TOO_LARGE, ANTHROPIC_TYPES

_PREVIEW_CHARS = 500
_PAYLOAD_TOO_LARGE = 413
_TYPES = {
    401: ErrorType.AUTHENTICATION,
    403: ErrorType.PERMISSION,
    404: ErrorType.NOT_FOUND,
    408: ErrorType.TIMEOUT,
    409: ErrorType.CONFLICT,
    429: ErrorType.RATE_LIMIT,
    500: ErrorType.SERVER,
    502: ErrorType.SERVER,
    503: ErrorType.UNAVAILABLE,
    504: ErrorType.TIMEOUT,
}
# llama-server's word for it, and the one that OpenAI's clients look for.
_CODES = {"exceed_context_size_error": "context_length_exceeded"}
_OPENAI_FIELDS = frozenset({"message", "type", "param", "code"})
_NO_SENTENCE = ("{", "[", "<")  # JSON that says nothing, or pages of a proxy
_WRAPPINGS = frozenset({"object", "error", "detail"})


def refusal_in(dialect: Dialect, status: int, body: bytes, who: str) -> bytes:
    """The body of a refusal (400 and above) as clients of that dialect read it. `who` names the provider."""
    told = _object_in(body)
    if _has_form(dialect, told):
        return body
    inner = told.get("error")
    detail: dict[str, Any] = inner if isinstance(inner, dict) else told
    message = sentence_in(body) or f"{who} answered {status}."
    kind = _TYPES.get(status, ErrorType.INVALID_REQUEST)
    if dialect is Dialect.OLLAMA:
        return msgspec.json.encode({"error": message})
    said = detail.get("type")
    code = detail.get("code")
    more = {name: detail[name] for name in detail.keys() - _OPENAI_FIELDS - _WRAPPINGS}
    error = {
        "message": message,
        "type": said if isinstance(said, str) and dialect is Dialect.OPENAI else kind.value,
        "param": detail.get("param"),
        "code": code if isinstance(code, str) else _CODES.get(said) if isinstance(said, str) else None,
        **more,
    }
    if dialect is Dialect.OPENAI:
        return msgspec.json.encode({"error": error})
    error["type"] = ANTHROPIC_TOO_LARGE if status == _PAYLOAD_TOO_LARGE else ANTHROPIC_TYPES[kind]
    return msgspec.json.encode({"type": "error", "error": error, "request_id": None})


def sentence_in(body: bytes) -> str:
    """What a refusal says, in any form; "" where it says nothing."""
    told = _object_in(body)
    for said in (told.get("error"), told.get("message"), told.get("detail")):
        message = said.get("message") if isinstance(said, dict) else said
        if isinstance(message, str) and message:
            return message
    text = body[: 4 * _PREVIEW_CHARS].decode(errors="replace").strip()[:_PREVIEW_CHARS]
    return "" if text.startswith(_NO_SENTENCE) else text


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except MALFORMED:
        return {}


def _has_form(dialect: Dialect, told: dict[str, Any]) -> bool:
    error = told.get("error")
    if dialect is Dialect.OLLAMA:
        return isinstance(error, str)
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return False
    if dialect is Dialect.ANTHROPIC:
        return told.get("type") == "error" and isinstance(error.get("type"), str)
    return error.keys() >= _OPENAI_FIELDS and isinstance(error["code"], str | None)
