"""The description of the control API: OpenAPI 3.1, made of the typed forms and the table of operations.

Decides: the document's build. Must not: describe anything that the table does not say.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from tray_valet import __version__
from tray_valet.core.config import Settings, ThresholdSettings
from tray_valet.web.control.openapi import forms as form
from tray_valet.web.control.openapi import outcomes as outcome
from tray_valet.web.control.openapi.examples import EXAMPLES
from tray_valet.web.control.openapi.operation import JSON, Op
from tray_valet.web.control.openapi.operations import OPERATIONS

_REFERENCE = "#/components/schemas/{name}"
_ERROR = {"$ref": "#/components/schemas/Error"}
_FAILURES = {
    400: "A value, the JSON or the Host header is wrong; `param` names it. Nothing was stored.",
    401: "The key is missing or wrong.",
    403: "A page of another origin, a caller from elsewhere without a key configured, or not for it.",
    404: "There is none of that name.",
    405: "Not that method.",
    408: "The body took too long.",
    409: "Not as things stand; the message says why.",
    413: "The body is too large.",
    415: "The body is not declared to be JSON.",
    429: "Too soon, or too many; Retry-After says when.",
    500: "The settings cannot be written, or a mistake of ours; the log says more.",
    501: "This provider or system cannot do that; the message says what it can.",
    502: "The provider does not answer, or failed.",
    503: "Not now; Retry-After says when.",
    504: "It took too long.",
    507: "The volume that holds the models has less than 5 GB free.",
}
_ALWAYS = (400, 401, 403, 408, 413, 503)
_ERROR_EXAMPLE = {
    "error": {"message": "…", "type": "invalid_request_error", "param": None, "code": "invalid_value"}
}


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for op in OPERATIONS:
        paths.setdefault(op.path, {})[op.method] = _operation(op)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tray Valet: control API",
            "version": __version__,
            "description": "From this machine no key is needed (control.local_access: open); from elsewhere "
            "send X-API-Key. MB are 2²⁰ bytes. Errors are {error: {message, type, param, code}}.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _security()},
        "security": [{}, {"key": []}, {"token": []}],
    }


def _operation(op: Op) -> dict[str, Any]:
    described: dict[str, Any] = {
        "tags": [op.tag],
        "summary": op.summary,
        "description": op.description or op.summary,
        "operationId": _id(op),
        "responses": {str(status): answer for status, answer in _answers(op)},
    }
    if op.parameters:
        described["parameters"] = [dict(parameter) for parameter in op.parameters]
    if op.body is not None:
        example = op.body_example if op.body_example is not None else {}
        content = {JSON: {"schema": dict(op.body), "example": example}}
        described["requestBody"] = {"required": op.is_body_needed, "content": content}
    return described


def _answers(op: Op) -> list[tuple[int, dict[str, Any]]]:
    answers: list[tuple[int, dict[str, Any]]] = []
    example = op.example if op.example is not None else EXAMPLES.get((op.method, op.path))
    for number, (status, (meaning, shape)) in enumerate(op.answers.items()):
        schema: dict[str, Any] = {"type": "string"} if shape is None else _schema_for(op, shape)
        content: dict[str, Any] = {"schema": schema}
        if example is not None and number == 0:
            content["example"] = example
        answers.append((status, {"description": meaning, "content": {op.kind: content}}))
    statuses = {*_ALWAYS, *op.failures, *((415,) if op.body is not None else ())}
    for status in sorted(statuses - set(op.answers)):
        answers.append((status, _failure(status)))
    return answers


def _failure(status: int) -> dict[str, Any]:
    failure: dict[str, Any] = {
        "description": _FAILURES[status],
        "content": {JSON: {"schema": _ERROR, "example": _ERROR_EXAMPLE}},
    }
    if status in (429, 503):
        seconds = {"type": "integer", "minimum": 1}
        failure["headers"] = {"Retry-After": {"schema": seconds, "description": "Seconds."}}
    return failure


def _schema_for(op: Op, shape: type[form.Form]) -> dict[str, Any]:
    if shape is not form.Form:
        return {"$ref": _REFERENCE.format(name=shape.__name__)}
    names = {"/config": "ThresholdSettings", "/settings": "SettingsShown"}
    name = names.get(op.path)
    return {"$ref": _REFERENCE.format(name=name)} if name else {"type": "object"}


@cache
def _schemas() -> dict[str, Any]:
    shapes = {shape for op in OPERATIONS for _, shape in op.answers.values() if shape is not None}
    kinds = [*sorted(shapes - {form.Form}, key=lambda kind: kind.__name__), form.Error, outcome.SettingsMeta]
    _, found = msgspec.json.schema_components([*kinds, Settings, ThresholdSettings], ref_template=_REFERENCE)
    schemas: dict[str, Any] = dict(found)
    sections = schemas["Settings"]["properties"]
    meta = {"$ref": _REFERENCE.format(name="SettingsMeta")}
    schemas["SettingsShown"] = {
        "type": "object",
        "description": "Every section, as in config.yaml, and `meta`.",
        "properties": {**sections, "meta": meta},
        "required": [*sections, "meta"],
    }
    return schemas


def _security() -> dict[str, Any]:
    return {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "token": {"type": "http", "scheme": "bearer"},
    }


def _id(op: Op) -> str:
    words = "".join(char if char.isalnum() else "_" for char in op.path).strip("_")
    return f"{op.method}_{words or 'root'}"
