"""JSON answers of the control API, as Starlette responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from tray_valet.core.errors import ValetError
from tray_valet.web.edge.errors import HttpError, answer_for


def json_answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Encode a value; floats that JSON does not know (infinity) become null."""
    return Response(
        msgspec.json.encode(value), status_code=status, headers=headers, media_type="application/json"
    )


def error_answer(error: ValetError | HttpError) -> Response:
    """Encode a failure."""
    answer = answer_for(error)
    headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
    return Response(answer.body, status_code=answer.status, headers=headers, media_type="application/json")
