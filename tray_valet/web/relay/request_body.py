"""A client's request, taken apart: which model, whether a stream, and what it says about the model's place.

Decides: what of a body is read, which is little. Must not: change a value; all stay as they were written.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from tray_valet.core.commands import Wish
from tray_valet.core.config_providers import Priority
from tray_valet.core.dialects import OLLAMA_CHAT, OLLAMA_GENERATE, Dialect, Operation
from tray_valet.core.errors import InvalidJson, InvalidValue
from tray_valet.core.models import MIN_CONTEXT_LENGTH, check_model_name
from tray_valet.web.edge.json_faults import MALFORMED
from tray_valet.web.edge.known_head import KnownHead
from tray_valet.web.relay.long_texts import fields_of_large

Fields = dict[str, msgspec.Raw]
_PRIORITY = b"x-request-priority"
_LONGEST_KEPT_BYTES = 300
_LARGE_BYTES = 128 * 1024
_NULL, _TRUE = msgspec.Raw(b"null"), msgspec.Raw(b"true")  # a Raw is equal to none but its like
_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_any = msgspec.json.Decoder(msgspec.Raw).decode
_decode_name = msgspec.json.Decoder(str).decode


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came. `query` without its question mark."""

    operation: Operation
    fields: Fields
    wish: Wish
    is_stream: bool
    is_large: bool = False  # so much that copies of it are to be avoided
    query: bytes = b""
    headers: list[tuple[bytes, bytes]] = []
    known: KnownHead | None = None  # its head, if that came before


def read_request(
    operation: Operation,
    body: bytes | memoryview,
    headers: list[tuple[bytes, bytes]],
    *,
    client: str,
    query: bytes,
    known: KnownHead | None = None,
) -> Asked:
    """Take a request apart. Raises InvalidJson, InvalidValue."""
    fields, name = parse_request(body)
    is_ollama = operation.dialect is Dialect.OLLAMA
    if operation.dialect is Dialect.ANTHROPIC and "messages" not in fields:
        # llama-server's answer to that is 500: it would look like a failure, and be tried again.
        raise InvalidValue("The request has no messages.", remedy="Set “messages”.", param="messages")
    wish = Wish(
        model=name,
        path=operation.path,
        client=client,
        priority=None if known is not None and _PRIORITY not in known.names else _priority(headers),
        context_length=_context_length(fields) if is_ollama else None,
    )
    return Asked(
        operation=operation,
        fields=fields,
        wish=wish,
        is_stream=wants_stream(operation, fields),
        is_large=len(body) > _LARGE_BYTES,
        query=query,
        headers=headers,
        known=known,
    )


def check_texts(fields: Fields) -> None:
    """Look into the long texts too, which are passed over at first. Raises InvalidJson."""
    for raw in fields.values():
        try:
            _decode_any(raw)
        except msgspec.DecodeError as error:
            raise _not_json(error) from None


def _not_json(error: Exception) -> InvalidJson:
    return InvalidJson(f"The body is not valid JSON: {str(error)[:200]}.")


def parse_request(body: bytes | memoryview) -> tuple[Fields, str]:
    """A request's fields as they were written, and the model it names.

    Raises InvalidJson, or InvalidValue for the model.
    """
    try:
        fields = _decode_fields(body) if len(body) <= _LARGE_BYTES else fields_of_large(body, _decode_fields)
    except RecursionError:
        raise InvalidJson("The JSON is nested too deeply.") from None
    except msgspec.ValidationError:
        raise InvalidJson("The body must be a JSON object ({…}).") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _not_json(error) from None
    key = "model"
    raw = fields.get(key)
    if raw is None and "name" in fields:
        key = "name"  # Ollama's older word for it
        raw = fields.pop(key)
    if raw is None:
        raise InvalidValue("The request names no model.", remedy="Set “model”.", param="model")
    text = bytes(raw)
    return fields, _known_name_in(text) if len(text) <= _LONGEST_KEPT_BYTES else _name_in(text)


def _name_in(raw: bytes) -> str:
    try:
        name = _decode_name(raw)
    except (msgspec.DecodeError, UnicodeError):
        raise InvalidValue("The model must be a name in quotes.", param="model") from None
    return check_model_name(name)


_known_name_in = lru_cache(maxsize=256)(_name_in)  # nearly all requests name one of a few models


def wants_stream(operation: Operation, fields: Fields) -> bool:
    """Whether the client asks for a stream, or gets one because it does not say."""
    if not operation.can_stream:
        return False
    raw = fields.get("stream")
    if raw is None or raw == _NULL:
        return operation.streams_by_default
    return raw == _TRUE


def keep_alive_is_zero(fields: Fields) -> bool:
    """Whether the body says that the model is to go at once (Ollama's `keep_alive`: 0, "0", "0s" …)."""
    value = _decoded(fields, "keep_alive")
    if isinstance(value, str):
        digits = value.strip().lstrip("+-").rstrip("hmsunµ")
        return digits.replace(".", "").strip("0") == "" and digits != ""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def is_command(asked: Asked) -> bool:
    """Whether it asks for no answer: Ollama's way to have a model loaded, or unloaded."""
    operation = asked.operation
    return operation.dialect is Dialect.OLLAMA and is_bare(operation.path, asked.fields)


def is_bare(path: str, fields: Fields) -> bool:
    """Whether the body asks for nothing, which Ollama takes as the wish to load the model, or unload it.

    Source: Ollama's `server/routes.go`: `GenerateHandler` (no prompt), `ChatHandler` (no messages).
    """
    if path == OLLAMA_GENERATE:
        return not _says(fields, "prompt")
    return path == OLLAMA_CHAT and not _says(fields, "messages")


def _says(fields: Fields, name: str) -> bool:
    raw = fields.get(name)
    if raw is None:
        return False
    return len(memoryview(raw)) > 64 or bool(_decoded(fields, name))


def _context_length(fields: Fields) -> int | None:
    """`options.num_ctx`, where it says something that a model can be loaded with."""
    options = _decoded(fields, "options")
    length = options.get("num_ctx") if isinstance(options, dict) else None
    if isinstance(length, int) and not isinstance(length, bool) and length >= MIN_CONTEXT_LENGTH:
        return length
    return None


def _decoded(fields: Fields, name: str) -> Any:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except MALFORMED:
        return None


def _priority(headers: list[tuple[bytes, bytes]]) -> Priority | None:
    """The header `X-Request-Priority`; None where there is none. Raises InvalidValue."""
    for name, value in headers:
        if name == _PRIORITY:
            text = value.decode("latin-1").strip().lower()
            try:
                return Priority(text)
            except ValueError:
                known = ", ".join(priority.value for priority in Priority)
                raise InvalidValue(
                    f"{text[:40]!r} is not a priority.", remedy=f"Use {known}.", param="X-Request-Priority"
                ) from None
    return None
