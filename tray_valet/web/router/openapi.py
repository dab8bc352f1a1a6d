"""GET /openapi.json of the router: every path with what it does.

Decides: the descriptions. Must not: describe the bodies of requests that are passed on: they are the
provider's, and unknown fields go through.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tray_valet import __version__
from tray_valet.core.dialects import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    OLLAMA_CHAT,
    OLLAMA_EMBED,
    OLLAMA_EMBEDDINGS,
    OLLAMA_GENERATE,
    OLLAMA_SHOW,
    OPERATIONS,
    RERANK,
    RESPONSES,
    Dialect,
    Framing,
)
from tray_valet.core.errors import Paused, UnknownModel, ValetError
from tray_valet.web.relay.dialect_errors import error_body

_JSON, _SSE, _LINES, _TEXT = "application/json", "text/event-stream", "application/x-ndjson", "text/plain"
_NAMES = {Dialect.OPENAI: "OpenAI", Dialect.ANTHROPIC: "Anthropic", Dialect.OLLAMA: "Ollama"}
_ERRORS: dict[Dialect, dict[str, Any]] = {
    Dialect.OPENAI: {"$ref": "#/components/schemas/Error"},
    Dialect.ANTHROPIC: {"$ref": "#/components/schemas/AnthropicError"},
    Dialect.OLLAMA: {"$ref": "#/components/schemas/OllamaError"},
}
_SAID = [{"role": "user", "content": "Why is the sky blue?"}]
_TEXTS = ["A sentence.", "Another."]
# What an example of a request says beside its model, or in its place.
_EXAMPLES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": _SAID, "stream": True},
    COMPLETIONS: {"prompt": "The sky is", "max_tokens": 16},
    RESPONSES: {"input": "Why is the sky blue?"},
    EMBEDDINGS: {"input": _TEXTS},
    RERANK: {"query": "Why is the sky blue?", "documents": _TEXTS},
    MESSAGES: {"messages": _SAID, "max_tokens": 256},
    COUNT_TOKENS: {"messages": _SAID},
    OLLAMA_CHAT: {"messages": _SAID},
    OLLAMA_GENERATE: {"prompt": "Why is the sky blue?", "options": {"num_ctx": 8192}},
    OLLAMA_EMBED: {"input": _TEXTS},
    OLLAMA_EMBEDDINGS: {"prompt": _TEXTS[0]},
    OLLAMA_SHOW: {},
    "/api/copy": {"destination": "brief"},
    "/api/create": {"model": "brief", "from": "llama3.2:3b", "system": "You are brief."},
}
_MODEL = "llama3.2:3b"
_PAUSED = Paused("Paused: game detected — steamapps/common/Hades.", retry_after_s=30.0)
_UNKNOWN = UnknownModel(
    "There is no model “lama3.2:3b”.", remedy="Did you mean “llama3.2:3b”?", param="model"
)
# (path, method, tag, summary, what comes)
_OWN: tuple[tuple[str, str, str, str, str], ...] = (
    ("/", "get", "Ollama", "The greeting that clients of Ollama look for.", _TEXT),
    ("/v1/models", "get", "OpenAI", "Every model and alias, over all providers.", _JSON),
    ("/v1/models/{name}", "get", "OpenAI", "One model; names may have slashes.", _JSON),
    ("/v1/models/eject", "post", "Management", "Take a model out of memory: {model}.", _JSON),
    ("/v1/models/{name}/reset", "post", "Management", "Forget that a model failed.", _JSON),
    ("/v1/models/{name}/status", "get", "Management", "How a model is.", _JSON),
    ("/v1/models/failed", "get", "Management", "Models that could not be loaded.", _JSON),
    ("/v1/models/status", "get", "Management", "The server and every model.", _JSON),
    ("/v1/models/status/stream", "get", "Management", "full_status, model_update, server_update.", _SSE),
    ("/api/tags", "get", "Ollama", "Every model and alias, as Ollama lists them.", _JSON),
    ("/api/ps", "get", "Ollama", "The models in memory.", _JSON),
    ("/api/version", "get", "Ollama", "The version of the Ollama behind, or the API's.", _JSON),
    ("/api/pull", "post", "Ollama", "Passed to an Ollama: download a model.", _LINES),
    ("/api/push", "post", "Ollama", "Passed to an Ollama: upload a model.", _LINES),
    ("/api/create", "post", "Ollama", "Passed to an Ollama: make a model.", _LINES),
    ("/api/copy", "post", "Ollama", "Passed to an Ollama: give a model another name.", _JSON),
    ("/api/delete", "delete", "Ollama", "Passed to an Ollama: remove a model.", _JSON),
    ("/health", "get", "Monitoring", "ok, degraded, or 503 when no provider answers.", _JSON),
    ("/vram", "get", "Monitoring", "VRAM, and what the models take of it.", _JSON),
    ("/v1/queue/stats", "get", "Monitoring", "The waiting lines.", _JSON),
    ("/v1/telemetry/summary", "get", "Monitoring", "The last 1,000 requests; seconds as numbers.", _JSON),
    ("/v1/health/models", "get", "Monitoring", "The models that are loaded or in trouble.", _JSON),
    ("/metrics", "get", "Monitoring", "Prometheus' text; OpenMetrics when asked.", _TEXT),
    ("/metrics/stream", "get", "Monitoring", "The main figures, once a second.", _SSE),
    ("/openapi.json", "get", "Monitoring", "This document.", _JSON),
)


@cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for path, method, tag, summary, kind in _OWN:
        paths.setdefault(path, {})[method] = _own(path, method, tag, summary, kind)
    for operation in OPERATIONS.values():
        paths[operation.path] = {"post": _passed_on(operation.path, operation.dialect)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tray Valet router",
            "version": __version__,
            "description": "One address for every model. Keys: `Authorization: Bearer` or `x-api-key`, "
            "where the settings have some.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _security()},
        "security": [{}, {"bearer": []}, {"header": []}],
    }


def _own(path: str, method: str, tag: str, summary: str, kind: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"type": "string"} if kind != _JSON else {"type": "object"}
    dialect = Dialect.OLLAMA if path.startswith("/api/") else Dialect.OPENAI
    described: dict[str, Any] = {
        "tags": [tag],
        "summary": summary,
        "operationId": _id(method, path),
        "responses": {
            "200": {"description": "Done.", "content": {kind: {"schema": shape}}},
            "default": _failure(dialect),
        },
    }
    if "{name}" in path:
        described["parameters"] = [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    if method != "get" and "{name}" not in path:
        described["requestBody"] = _body(
            path, ["model"] if path != "/api/copy" else ["source", "destination"]
        )
    return described


def _passed_on(path: str, dialect: Dialect) -> dict[str, Any]:
    operation = OPERATIONS[path]
    content = {_JSON: {"schema": {"type": "object"}}}
    if operation.can_stream:
        content[_SSE if operation.framing is Framing.EVENTS else _LINES] = {"schema": {"type": "string"}}
    return {
        "tags": [_NAMES[dialect]],
        "summary": f"{_NAMES[dialect]}'s own, passed to a provider that has the model.",
        "operationId": _id("post", path),
        "parameters": [
            {
                "name": "X-Request-Priority",
                "in": "header",
                "schema": {"type": "string", "enum": ["high", "normal", "low"]},
            }
        ],
        "requestBody": _body(path, ["model"]),
        "responses": {
            "200": {"description": "The provider's answer.", "content": content},
            "503": {"description": "Paused: Retry-After and the reason.", **_content(dialect, _PAUSED)},
            "default": _failure(dialect),
        },
    }


def _id(method: str, path: str) -> str:
    words = "".join(char if char.isalnum() else "_" for char in path).strip("_")
    return f"{method}_{words or 'root'}"


def _body(path: str, names: list[str]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": names,
        "properties": {name: {"type": "string"} for name in names},
        "additionalProperties": True,
    }
    example = {**dict.fromkeys(names, _MODEL), **_EXAMPLES.get(path, {})}
    return {"required": True, "content": {_JSON: {"schema": schema, "example": example}}}


def _failure(dialect: Dialect) -> dict[str, Any]:
    return {"description": "Refused or failed; the message says why.", **_content(dialect, _UNKNOWN)}


def _content(dialect: Dialect, error: ValetError) -> dict[str, Any]:
    return {"content": {_JSON: {"schema": _ERRORS[dialect], "example": error_body(dialect, error)}}}


def _schemas() -> dict[str, Any]:
    text = {"type": "string"}
    inner = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {"message": text, "type": text, "param": {"type": ["string", "null"]}, "code": text},
    }
    return {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": inner}},
        "AnthropicError": {
            "type": "object",
            "required": ["type", "error"],
            "properties": {"type": {"const": "error"}, "error": inner},
        },
        "OllamaError": {
            "type": "object",
            "required": ["error", "code"],
            "properties": {"error": text, "code": text, "type": text},
        },
    }


def _security() -> dict[str, Any]:
    return {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
