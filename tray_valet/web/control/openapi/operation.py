"""An operation of the control API, and the words that the table of operations is written in.

Decides: what is said of an operation. Must not: know the operations (`operations.py` lists them).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tray_valet.web.control.openapi import forms as form

JSON, SSE, HTML = "application/json", "text/event-stream", "text/html"
MODEL = {"type": "string", "pattern": r"^[A-Za-z0-9._:/@-]{1,300}$"}
TEXT = {"type": "string", "maxLength": 500}
SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": 31_622_400}
PID = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
PCT = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
GAME, HOLD = "steam:1145360", "hold-1"
DOWNLOAD = {
    "id": "6f2c1d0a9b3e",
    "model": "llama3.2:3b",
    "provider": "ollama",
    "state": "running",
    "status": "pulling dde5aa3fc5ff",
    "completed_bytes": 524_288_000,
    "total_bytes": 2_019_377_376,
    "percent": 26.0,
    "attempts": 0,
    "error": None,
    "added_at": 1_760_000_000.0,
    "next_try_at": None,
    "ended_at": None,
}


class Op(msgspec.Struct, frozen=True, kw_only=True):
    """An operation. `answers`: status → (what it means, form); `failures`: the statuses beside the usual."""

    method: str
    path: str
    tag: str
    summary: str
    answers: Mapping[int, tuple[str, type[form.Form] | None]]
    description: str = ""
    kind: str = JSON
    body: Mapping[str, Any] | None = None  # JSON schema of the body
    is_body_needed: bool = False
    body_example: Any = None
    example: Any = None  # of the first answer
    failures: tuple[int, ...] = ()
    parameters: tuple[Mapping[str, Any], ...] = ()


def an_object(needed: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """The schema of a body: these fields and no others."""
    shape = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**shape, "required": list(needed)} if needed else shape


def or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same, or null."""
    return {"anyOf": [dict(schema), {"type": "null"}]}


def in_path(
    name: str, example: str, description: str, schema: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A part of the path."""
    shape = schema or {"type": "string", "minLength": 1}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": shape,
        "example": example,
        "description": description,
    }


def in_query(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A field of the query; it may be left out."""
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


PROVIDER = in_query("provider", "A provider's name, where several could be meant.", MODEL)
OK = "Done."


def a_get(path: str, tag: str, summary: str, answer: type[form.Form], example: Any, **more: Any) -> Op:
    """A question."""
    answers = {200: ("The answer.", answer)}
    return Op(method="get", path=path, tag=tag, summary=summary, answers=answers, example=example, **more)


def a_post(
    path: str, tag: str, summary: str, answers: Mapping[int, tuple[str, type[form.Form] | None]], **more: Any
) -> Op:
    """A command."""
    return Op(method="post", path=path, tag=tag, summary=summary, answers=answers, **more)
