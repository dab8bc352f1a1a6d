"""Errors on the wire: which HTTP status, type and headers a failure gets.

Decides: the one table from an error of the product to its status, and the JSON both APIs answer with.
Must not: invent failures, or word them (the error carries its sentence and remedy).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from tray_valet.core.errors import (
    AddressInUse,
    CannotKill,
    Cooldown,
    DiskFull,
    EngineMissing,
    GameRunning,
    InvalidJson,
    InvalidValue,
    KeyNotAcknowledged,
    LoadFailed,
    LocalOnly,
    NotFound,
    NotSupported,
    Paused,
    ProviderUnreachable,
    QueueFull,
    Refused,
    RetryLater,
    RootRefused,
    SettingsChangedElsewhere,
    SettingsError,
    SettingsUnwritable,
    TimedOut,
    UnknownModel,
    UpstreamFailed,
    ValetError,
    VramExhausted,
)
from tray_valet.web.edge.wire_units import MIB


class ErrorType(StrEnum):
    """The `type` of an error; the words are those that OpenAI's clients know, and `unavailable_error`."""

    INVALID_REQUEST = "invalid_request_error"
    AUTHENTICATION = "authentication_error"
    PERMISSION = "permission_error"
    NOT_FOUND = "not_found_error"
    CONFLICT = "conflict_error"
    RATE_LIMIT = "rate_limit_error"
    UNAVAILABLE = "unavailable_error"
    TIMEOUT = "timeout_error"
    SERVER = "server_error"


class EdgeCode(StrEnum):
    """Codes of failures that only exist on the wire."""

    BAD_HOST = "bad_host"
    ORIGIN_REFUSED = "origin_refused"
    TOO_LARGE = "body_too_large"
    BODY_TOO_SLOW = "body_too_slow"
    BAD_LENGTH = "bad_content_length"
    NOT_JSON = "unsupported_media_type"
    KEY_MISSING = "missing_api_key"
    KEY_WRONG = "invalid_api_key"
    NO_KEY_CONFIGURED = "no_api_key_configured"
    PATH_NOT_FOUND = "path_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MALFORMED = "malformed_request"
    OVERLOADED = "too_many_requests"
    INTERNAL = "internal"


class HttpError(Exception):
    """A request that is refused by what HTTP says of it, before the valet is asked anything."""

    def __init__(
        self,
        status: int,
        kind: ErrorType,
        code: EdgeCode,
        message: str,
        *,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.message = message
        self.headers = headers


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole JSON answer: status, headers beside the usual ones, body."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


STATUS_OF: Mapping[type[ValetError], tuple[int, ErrorType]] = {
    ValetError: (500, ErrorType.SERVER),
    RetryLater: (503, ErrorType.UNAVAILABLE),
    Paused: (503, ErrorType.UNAVAILABLE),
    ProviderUnreachable: (502, ErrorType.SERVER),
    UpstreamFailed: (502, ErrorType.SERVER),
    TimedOut: (504, ErrorType.TIMEOUT),
    QueueFull: (429, ErrorType.RATE_LIMIT),
    Cooldown: (429, ErrorType.RATE_LIMIT),
    VramExhausted: (503, ErrorType.UNAVAILABLE),
    LoadFailed: (503, ErrorType.SERVER),
    Refused: (409, ErrorType.CONFLICT),
    GameRunning: (409, ErrorType.CONFLICT),
    UnknownModel: (404, ErrorType.NOT_FOUND),
    NotFound: (404, ErrorType.NOT_FOUND),
    InvalidValue: (400, ErrorType.INVALID_REQUEST),
    InvalidJson: (400, ErrorType.INVALID_REQUEST),
    NotSupported: (501, ErrorType.INVALID_REQUEST),
    CannotKill: (409, ErrorType.CONFLICT),
    DiskFull: (507, ErrorType.SERVER),
    KeyNotAcknowledged: (409, ErrorType.CONFLICT),
    LocalOnly: (403, ErrorType.PERMISSION),
    RootRefused: (403, ErrorType.PERMISSION),
    SettingsError: (400, ErrorType.INVALID_REQUEST),
    SettingsChangedElsewhere: (409, ErrorType.CONFLICT),
    SettingsUnwritable: (500, ErrorType.SERVER),
    AddressInUse: (409, ErrorType.CONFLICT),
    EngineMissing: (503, ErrorType.SERVER),
}


def status_of(error: ValetError) -> tuple[int, ErrorType]:
    """The HTTP status and type of an error: its own row, else that of its nearest ancestor."""
    for cls in type(error).__mro__:
        row = STATUS_OF.get(cls)
        if row is not None:
            return row
    return STATUS_OF[ValetError]


def error_object(error: ValetError | HttpError) -> dict[str, Any]:
    """The inner object of `{"error": …}`: message with remedy, type, param, code, and what helps."""
    if isinstance(error, HttpError):
        return {"message": error.message, "type": error.kind.value, "param": None, "code": error.code.value}
    shape: dict[str, Any] = {
        "message": str(error),
        "type": status_of(error)[1].value,
        "param": error.param,
        "code": error.code.value,
    }
    if isinstance(error, RetryLater):
        shape["retry_after_seconds"] = retry_after_s(error)
    if isinstance(error, VramExhausted):
        shape["required_mb"] = -(-error.required_bytes // MIB)
        shape["available_mb"] = error.available_bytes // MIB
    if isinstance(error, DiskFull):
        shape["required_mb"] = -(-error.required_bytes // MIB)
        shape["available_mb"] = error.free_bytes // MIB
    if isinstance(error, LoadFailed) and error.log_tail:
        shape["log_tail"] = list(error.log_tail)
    if isinstance(error, SettingsError):
        shape["details"] = [
            {"path": problem.path, "message": problem.message, "line": problem.line}
            for problem in error.problems
        ]
    return shape


def retry_after_s(error: RetryLater) -> int:
    """Whole seconds to wait, 1 at least, 1 day at most: `Retry-After` knows no others (RFC 9110)."""
    wait_s = error.retry_after_s
    return min(86_400, max(1, math.ceil(wait_s))) if math.isfinite(wait_s) else 86_400


def answer_for(error: ValetError | HttpError) -> Answer:
    """The whole answer for a failure."""
    body = msgspec.json.encode({"error": error_object(error)})
    if isinstance(error, HttpError):
        return Answer(status=error.status, body=body, headers=error.headers)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, RetryLater):
        headers = ((b"retry-after", str(retry_after_s(error)).encode()),)
    return Answer(status=status_of(error)[0], body=body, headers=headers)


def nothing_there() -> HttpError:
    """The refusal of a path that does not exist."""
    return HttpError(404, ErrorType.NOT_FOUND, EdgeCode.PATH_NOT_FOUND, "There is nothing at that path.")


def not_allowed(method: str, allowed: Iterable[str]) -> HttpError:
    """The refusal of a method at a path that knows only those allowed."""
    listed = ", ".join(allowed)
    return HttpError(
        405,
        ErrorType.INVALID_REQUEST,
        EdgeCode.METHOD_NOT_ALLOWED,
        f"{method} is not possible there. Use {listed}.",
        headers=((b"allow", listed.encode()),),
    )


def mistake_of_ours() -> HttpError:
    """What a caller is told of a mistake of ours; what it was is in the log, not on the wire."""
    return HttpError(
        500,
        ErrorType.SERVER,
        EdgeCode.INTERNAL,
        "Something went wrong inside Tray Valet. Its log says what (tray-valet logs).",
    )


def unexpected() -> Answer:
    """The answer for a mistake of ours."""
    return answer_for(mistake_of_ours())
