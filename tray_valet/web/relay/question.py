"""How a request is put to an engine: its body as the lease wants it, and the way that the answer comes back.

Decides: passed through as it is, asked as a stream and put together, or said in Ollama's own words.
Must not: talk to anybody.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from tray_valet.core.commands import Lease, Overrides
from tray_valet.core.dialects import Dialect
from tray_valet.core.models import ProviderKind
from tray_valet.web.relay.request_body import Asked, Fields
from tray_valet.web.translate.ollama_native import NativeExchange, native_exchange
from tray_valet.web.translate.ollama_overrides import native_changes, native_overrides, takes_options
from tray_valet.web.translate.whole_answers import WholeAnswer, assembler_for, can_stream_whole

_encode = msgspec.json.encode


class Question(msgspec.Struct, kw_only=True):
    """What goes to the engine. At most one of `assembler` and `native` reads its answer."""

    target: bytes
    body: bytes | list[bytes | memoryview]
    assembler: WholeAnswer | None = None
    native: NativeExchange | None = None

    @property
    def is_translated(self) -> bool:
        """Whether the client gets other bytes than the engine's."""
        return self.assembler is not None or self.native is not None


def question_for(asked: Asked, lease: Lease) -> Question:
    """The question for this lease's engine. Raises InvalidValue for what its dialect cannot say."""
    fields, upstream, overrides = asked.fields, lease.upstream, lease.overrides
    path = asked.operation.path
    if overrides is not None:
        is_ollama = upstream.kind is ProviderKind.OLLAMA
        is_native = is_ollama and asked.operation.dialect is Dialect.OLLAMA
        fields = _overridden(fields, overrides, native_path=path if is_native else "")
        if is_ollama:
            context, keep_alive_s = overrides.context_length, overrides.keep_alive_s
            if is_native:
                fields = native_overrides(path, fields, context, keep_alive_s)
            elif context is not None or keep_alive_s is not None:
                native = native_exchange(
                    path, fields, model=upstream.model, context_length=context, keep_alive_s=keep_alive_s
                )
                if native is not None:
                    return Question(target=native.path.encode(), body=native.body, native=native)
    assembler = None
    if upstream.streams_whole and not asked.is_stream and can_stream_whole(path, fields):
        assembler = assembler_for(path)
        if assembler is not None:
            fields = assembler.request_fields(fields)
    fields = {**fields, "model": _name_as_json(upstream.model)}
    body = _pieces(fields) if asked.is_large else _encode(fields)
    target = path.encode()
    if asked.query:
        target += b"?" + asked.query
    return Question(target=target, body=body, assembler=assembler)


@lru_cache(maxsize=256)
def _name_as_json(model: str) -> msgspec.Raw:
    return msgspec.Raw(_encode(model))


def _pieces(fields: Fields) -> list[bytes | memoryview]:
    """The same JSON without a copy of the values: megabytes take milliseconds."""
    pieces: list[bytes | memoryview] = []
    lead = b"{"
    for name, raw in fields.items():
        pieces += (lead + _encode(name) + b":", memoryview(raw))
        lead = b","
    pieces.append(b"}")
    return pieces


def _overridden(fields: Fields, overrides: Overrides, *, native_path: str) -> Fields:
    """With what the route sets, without what it strips; the model is not its business.

    `native_path`: where Ollama is asked in its own dialect, "" = nowhere.
    """
    if not overrides.set and not overrides.strip:
        return fields
    if takes_options(native_path):
        return native_changes(native_path, fields, overrides.set, overrides.strip)
    added: dict[str, Any] = {name: msgspec.Raw(_encode(value)) for name, value in overrides.set.items()}
    return {name: raw for name, raw in (fields | added).items() if name not in overrides.strip}
