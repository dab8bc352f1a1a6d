"""OpenAI's requests over Ollama's own routes, there and back.

Ollama's OpenAI routes take no context length and no time to live, and reload a model that was loaded with
another context than the default. A route that sets either is asked in Ollama's own dialect instead.

Decides: which paths can be asked so, and what goes to the client for each piece of the answer.
Must not: talk to anybody; bytes in, bytes out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from tray_valet.core.dialects import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    OLLAMA_CHAT,
    OLLAMA_EMBED,
    OLLAMA_GENERATE,
)
from tray_valet.core.errors import UpstreamFailed
from tray_valet.web.edge.json_faults import MALFORMED
from tray_valet.web.translate.ollama_answers import (
    ChatWriter,
    CompletionWriter,
    NativeAnswer,
    Writer,
    embedding_list,
    error_object,
    event_of,
)
from tray_valet.web.translate.ollama_requests import (
    native_body,
    wants_base64,
    wants_stream,
    wants_usage,
)

_Fields = dict[str, msgspec.Raw]
_OK, _FAILED = 200, 500
_EVENTS, _JSON = b"text/event-stream", b"application/json"
_PATHS = {CHAT: OLLAMA_CHAT, COMPLETIONS: OLLAMA_GENERATE, EMBEDDINGS: OLLAMA_EMBED}
_WRITERS: dict[str, type[Writer]] = {CHAT: ChatWriter, COMPLETIONS: CompletionWriter}
_decode_answer = msgspec.json.Decoder(NativeAnswer).decode


class NativeExchange(ABC):
    """One request in Ollama's own words, and the way back.

    `path` and `body` go to Ollama. `failed`: the error that Ollama told under HTTP 200, "" = none; in a
    stream the client has then been told.
    """

    is_stream = False

    def __init__(self, path: str, body: bytes) -> None:
        self.path = path
        self.body = body
        self.failed = ""
        self._pieces: list[bytes] = []

    def head(self, status: int) -> tuple[int, bytes]:
        """Status and content type for the client, when Ollama answers with `status`."""
        return status, _EVENTS if self.is_stream and status == _OK else _JSON

    @abstractmethod
    def feed(self, chunk: bytes) -> bytes:
        """What the client gets for the next bytes of an answer with status 200, cut anywhere."""

    @abstractmethod
    def finish(self) -> bytes:
        """What the client gets at the answer's end. Raises UpstreamFailed if it broke off or failed,
        unless the client of a stream has been told."""

    def error(self, status: int, body: bytes) -> bytes:
        """The whole body of an answer with another status, as OpenAI's clients know errors."""
        try:
            told: Any = msgspec.json.decode(body)
        except MALFORMED:
            told = None
        inner = told.get("error") if isinstance(told, dict) else None
        if isinstance(inner, dict):
            return body  # in OpenAI's shape already
        message = str(inner) if inner else body.decode(errors="replace").strip()
        return msgspec.json.encode(error_object(status, message or f"Ollama answered {status}."))

    def _answer(self, line: bytes) -> NativeAnswer:
        """One answer or line. Raises UpstreamFailed, and remembers why, if it is none or tells an error."""
        try:
            answer = _decode_answer(line)
        except MALFORMED as error:
            self.failed = "Ollama's answer is not one."
            raise UpstreamFailed(self.failed) from error
        if answer.error:
            self.failed = answer.error
            raise UpstreamFailed(f"Ollama failed: {answer.error}")
        return answer


def native_exchange(
    path: str, fields: _Fields, *, model: str, context_length: int | None, keep_alive_s: float | None
) -> NativeExchange | None:
    """Say an OpenAI request in Ollama's own words; None = there are none for that path.

    `context_length` in tokens; `keep_alive_s` in seconds, 0 = unload after the answer, `inf` = for ever.
    Raises InvalidValue for what Ollama's OpenAI routes refuse.
    """
    if path not in _PATHS:
        return None
    body = native_body(path, fields, model=model, context_length=context_length, keep_alive_s=keep_alive_s)
    native_path = _PATHS[path]
    if path == EMBEDDINGS:
        shape = partial(embedding_list, model=model, is_base64=wants_base64(fields))
        return _WholeAnswer(native_path, body, shape)
    writer = _WRITERS[path](is_usage_wanted=wants_usage(fields))
    if wants_stream(fields):
        return _StreamedCompletion(native_path, body, writer)
    return _WholeAnswer(native_path, body, writer.whole)


class _WholeAnswer(NativeExchange):
    """An answer that the client gets whole, in the shape that `shape` gives it."""

    def __init__(self, path: str, body: bytes, shape: Callable[[NativeAnswer], Any]) -> None:
        super().__init__(path, body)
        self._shape = shape

    def feed(self, chunk: bytes) -> bytes:
        self._pieces.append(chunk)
        return b""

    def finish(self) -> bytes:
        body = b"".join(self._pieces)
        if not body.strip():
            raise UpstreamFailed("Ollama broke off before it answered.")
        return msgspec.json.encode(self._shape(self._answer(body)))


class _StreamedCompletion(NativeExchange):
    """Lines in, events out."""

    is_stream = True

    def __init__(self, path: str, body: bytes, writer: Writer) -> None:
        super().__init__(path, body)
        self._writer = writer
        self._is_done = False

    def feed(self, chunk: bytes) -> bytes:
        if b"\n" not in chunk:
            self._pieces.append(chunk)
            return b""
        *lines, rest = b"".join((*self._pieces, chunk)).split(b"\n")
        self._pieces = [rest] if rest else []
        return b"".join(self._events(line) for line in lines)

    def finish(self) -> bytes:
        rest = self._events(b"".join(self._pieces))
        self._pieces = []
        if not self._is_done and not self.failed:
            raise UpstreamFailed("Ollama broke off in the middle of its answer.")
        return rest

    def _events(self, line: bytes) -> bytes:
        if self._is_done or self.failed or not line.strip():
            return b""
        try:
            answer = self._answer(line)
        except UpstreamFailed:
            return event_of(error_object(_FAILED, self.failed))
        self._is_done = answer.done
        return self._writer.events(answer)
