"""What every whole answer that is put together from a stream has in common.

Decides: how the stream is read, when it has failed, and what the request must say to get one.
Must not: know what the events of one path mean (`whole_choices`, `whole_responses`, `whole_messages`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import msgspec

from tray_valet.core.errors import UpstreamFailed
from tray_valet.web.edge.json_faults import MALFORMED
from tray_valet.web.translate.sse_parser import SseParser

_Fields = dict[str, msgspec.Raw]
_FAILED_STATUS = 500
_TRUE = msgspec.Raw(b"true")
# Anthropic's API reference, "Errors"; an event of a stream carries the type alone.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "exceed_context_size_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "not_supported_error": 501,
    "unavailable_error": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class StreamedAnswer(ABC):
    """One answer in the making. `error` is the engine's own, as status and body, once it has told one."""

    takes_usage_option = False  # whether the path knows `stream_options`

    def __init__(self) -> None:
        self.error: tuple[int, bytes] | None = None
        self._parser = SseParser()
        self._is_ended = False

    def request_fields(self, fields: _Fields) -> _Fields:
        """The request's fields, asking for a stream with its usage; all others byte for byte."""
        asked = {**fields, "stream": _TRUE}
        if self.takes_usage_option:
            options = _object_of(fields.get("stream_options")) | {"include_usage": _TRUE}
            asked["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
        return asked

    def feed(self, chunk: bytes) -> None:
        """Take the stream's next bytes, cut anywhere. What comes after the end or an error is ignored."""
        for name, data in self._parser.events(chunk):
            if self._is_ended or self.error is not None:
                return
            if not data.lstrip().startswith(
                b"{"
            ):  # `[DONE]`, or the `null` that llama.cpp sends for a prompt of several
                self._is_ended = self._is_ended or self._is_end(data)
                continue
            try:
                event = _decode_object(data)
                if name == b"error" or event.get("type") == "error" or event.get("error") is not None:
                    self.error = _error_of(event, data)
                    return
                self._take(event)
            except (msgspec.DecodeError, RecursionError, AttributeError, TypeError, ValueError):
                # No JSON, or not of the shape that the references tell: lists where objects should be.
                self.error = _FAILED_STATUS, _error_body("The engine's stream was malformed.")
                return

    def finish(self) -> bytes:
        """The whole answer as JSON. Raises UpstreamFailed if the stream broke off or told an error."""
        if self.error is not None:
            raise UpstreamFailed(f"The engine failed: {_message_of(_decode_object(self.error[1]))}")
        if not self._is_ended:
            raise UpstreamFailed("The engine broke off in the middle of its answer.")
        return msgspec.json.encode(self._whole())

    @staticmethod
    def _is_end(data: bytes) -> bool:
        """Whether an event that is no JSON object ends the stream."""
        return False

    @abstractmethod
    def _take(self, event: dict[str, Any]) -> None:
        """Fold one event in."""

    @abstractmethod
    def _whole(self) -> Any:
        """The answer, once the stream has ended."""


def _object_of(raw: msgspec.Raw | None) -> _Fields:
    try:
        return msgspec.json.decode(raw, type=_Fields) if raw is not None else {}
    except MALFORMED:
        return {}


def _error_of(event: dict[str, Any], data: bytes) -> tuple[int, bytes]:
    """Status and body of the error that an event tells; a bare inner object is put where clients look."""
    inner = event.get("error")
    if inner is None:
        inner = {name: value for name, value in event.items() if name != "type"} or event
        data = msgspec.json.encode({"error": inner})
    if not isinstance(inner, dict):
        return _FAILED_STATUS, data
    code = inner.get("code")
    if isinstance(code, int) and 400 <= code <= 599:
        return code, data
    return _STATUS_OF_TYPE.get(str(inner.get("type")), _FAILED_STATUS), data


def _message_of(body: dict[str, Any]) -> str:
    inner = body.get("error")
    return str(inner.get("message", inner)) if isinstance(inner, dict) else str(inner)


def _error_body(message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": "server_error"}})
