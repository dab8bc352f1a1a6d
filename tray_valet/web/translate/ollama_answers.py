"""Ollama's own answers in OpenAI's shapes: whole ones, chunks of streams, vectors, errors.

Decides: what each answer of Ollama becomes, as `openai/openai.go` of Ollama decides it.
Must not: read the wire (`ollama_native` does), or know the request beyond what shapes its answer.
"""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from array import array
from base64 import b64encode
from typing import Any

import msgspec

from tray_valet.providers.ollama_times import unix_s

_Object = dict[str, Any]
DONE_EVENT = b"data: [DONE]\n\n"
_FINGERPRINT = "fp_ollama"
_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
_OTHER_TYPE = "api_error"
_CODES = {404: "model_not_found"}  # Ollama tells none; clients compare this one


class _Function(msgspec.Struct):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    index: int | None = None


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct):
    role: str = ""
    content: str = ""
    thinking: str = ""
    tool_calls: list[_ToolCall] | None = None


class NativeAnswer(msgspec.Struct):
    """One answer of Ollama, or one line of it: of all three routes the fields that are used."""

    model: str = ""
    created_at: str = ""
    done: bool = False
    done_reason: str = ""
    message: _Message = msgspec.field(default_factory=_Message)
    response: str = ""
    logprobs: list[msgspec.Raw] | None = None
    prompt_eval_count: int = 0
    eval_count: int = 0
    embeddings: list[msgspec.Raw] | None = None
    error: str = ""


class Writer(ABC):
    """What the answers to one request share. `is_usage_wanted`: at the end of a stream."""

    kind = ""
    chunk_kind = ""
    _id_head = ""

    def __init__(self, *, is_usage_wanted: bool = False) -> None:
        self._is_usage_wanted = is_usage_wanted
        self._id = self._id_head + os.urandom(12).hex()
        self._created = 0

    def whole(self, answer: NativeAnswer) -> _Object:
        """The whole answer."""
        head = self._head(answer, self.kind)
        return {**head, "choices": [self._choice(answer)], "usage": _usage(answer)}

    def events(self, answer: NativeAnswer) -> bytes:
        """The events that one line of a stream becomes."""
        head = self._head(answer, self.chunk_kind)
        events = [event_of({**head, **chunk}) for chunk in self._chunks(answer)]
        if answer.done:
            if self._is_usage_wanted:
                events.append(event_of({**head, "choices": [], "usage": _usage(answer)}))
            events.append(DONE_EVENT)
        return b"".join(events)

    @abstractmethod
    def _choice(self, answer: NativeAnswer) -> _Object:
        """The one choice of a whole answer."""

    @abstractmethod
    def _chunks(self, answer: NativeAnswer) -> list[_Object]:
        """What the chunks for one line say, beside what all have in common."""

    def _head(self, answer: NativeAnswer, kind: str) -> _Object:
        self._created = self._created or int(unix_s(answer.created_at) or time.time())
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": answer.model,
            "system_fingerprint": _FINGERPRINT,
        }


class ChatWriter(Writer):
    """`/api/chat` as `/v1/chat/completions`."""

    kind, chunk_kind, _id_head = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def __init__(self, *, is_usage_wanted: bool = False) -> None:
        super().__init__(is_usage_wanted=is_usage_wanted)
        self._has_begun = False
        self._calls = 0

    def _choice(self, answer: NativeAnswer) -> _Object:
        said = answer.message
        message: _Object = {"role": said.role or "assistant", "content": said.content}
        if said.thinking:
            message["reasoning"] = said.thinking
        if said.tool_calls:
            message["tool_calls"] = self._tool_calls(said.tool_calls)
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason(answer)}
        return choice | _logprobs(answer)

    def _chunks(self, answer: NativeAnswer) -> list[_Object]:
        said = answer.message
        chunks = []
        is_trailer = answer.done and not (said.content or said.thinking or said.tool_calls or answer.logprobs)
        if not (is_trailer and self._has_begun):
            delta: _Object = {} if self._has_begun else {"role": "assistant"}
            self._has_begun = True
            logprobs = _logprobs(answer)
            if said.thinking and (said.content or said.tool_calls):  # thoughts go in a chunk of their own
                chunks.append(_delta_chunk({**delta, "reasoning": said.thinking}, logprobs))
                delta, logprobs = {}, {}
            elif said.thinking:
                delta["reasoning"] = said.thinking
            delta["content"] = said.content
            if said.tool_calls:
                delta["tool_calls"] = self._tool_calls(said.tool_calls)
            chunks.append(_delta_chunk(delta, logprobs))
        if answer.done:
            reason = self._finish_reason(answer) or "stop"
            chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        return chunks

    def _tool_calls(self, calls: list[_ToolCall]) -> list[_Object]:
        shaped = []
        for call in calls:
            index = call.function.index if call.function.index is not None else self._calls
            function = {"name": call.function.name, "arguments": bytes(call.function.arguments).decode()}
            identity = call.id or f"call_{os.urandom(4).hex()}"
            shaped.append({"id": identity, "index": index, "type": "function", "function": function})
            self._calls += 1
        return shaped

    def _finish_reason(self, answer: NativeAnswer) -> str | None:
        if self._calls and answer.done_reason in ("stop", ""):
            return "tool_calls"
        return answer.done_reason or None


class CompletionWriter(Writer):
    """`/api/generate` as `/v1/completions`."""

    kind, chunk_kind, _id_head = "text_completion", "text_completion", "cmpl-"

    def _choice(self, answer: NativeAnswer) -> _Object:
        choice = {"text": answer.response, "index": 0, "finish_reason": answer.done_reason or None}
        return choice | _logprobs(answer)

    def _chunks(self, answer: NativeAnswer) -> list[_Object]:
        return [{"choices": [self._choice(answer)]}]


def embedding_list(answer: NativeAnswer, *, model: str, is_base64: bool) -> _Object:
    """`/api/embed` as `/v1/embeddings`; `is_base64`: the vectors as little-endian 32-bit floats."""
    data = [
        {"object": "embedding", "embedding": _base64(vector) if is_base64 else vector, "index": index}
        for index, vector in enumerate(answer.embeddings or ())
    ]
    count = answer.prompt_eval_count
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def error_object(status: int, message: str) -> _Object:
    """An error of Ollama as OpenAI's clients know them."""
    inner = {"message": message, "type": _TYPES.get(status, _OTHER_TYPE), "param": None}
    return {"error": {**inner, "code": _CODES.get(status)}}


def event_of(value: _Object) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % msgspec.json.encode(value)


def _delta_chunk(delta: _Object, logprobs: _Object) -> _Object:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None, **logprobs}]}


def _logprobs(answer: NativeAnswer) -> _Object:
    return {"logprobs": {"content": answer.logprobs}} if answer.logprobs else {}


def _usage(answer: NativeAnswer) -> _Object:
    return {
        "prompt_tokens": answer.prompt_eval_count,
        "completion_tokens": answer.eval_count,
        "total_tokens": answer.prompt_eval_count + answer.eval_count,
    }


def _base64(vector: msgspec.Raw) -> str:
    numbers = array("f", msgspec.json.decode(vector, type=list[float]))
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()
