"""Whole answers of `/v1/chat/completions` and `/v1/completions`, put together from their chunks.

Decides: how deltas add up to messages, and which choice a chunk's other fields belong to.
Must not: read the stream itself, or reword anything.
Sources: OpenAI's API reference ("chat completion chunk object"); llama.cpp's `server-task.cpp`
(`to_json_oaicompat_chat_stream`), whose whole answer is what comes out here.
"""

from __future__ import annotations

from typing import Any

from tray_valet.web.translate.streamed_answer import StreamedAnswer

_Object = dict[str, Any]
# Said by chunks alone: how far the prompt was read.
_NOT_IN_WHOLE = ("prompt_progress",)


class _Choice:
    """One choice in the making."""

    def __init__(self, index: int) -> None:
        self.fields: _Object = {"finish_reason": None, "index": index}
        self.text: list[str] = []
        self.message: _Object = {"role": "assistant", "content": None}
        self.strings: dict[str, list[str]] = {}
        self.tool_calls: dict[int, _Call] = {}
        self.function_call: _Call | None = None
        self.logprobs: _Object | None = None

    def add_fields(self, choice: _Object) -> None:
        for name, value in choice.items():
            if name == "logprobs":
                self._add_logprobs(value)
            elif name == "text":
                self.text.append(value or "")
            elif name != "delta" and (value is not None or name not in self.fields):
                self.fields[name] = value

    def add_delta(self, delta: _Object) -> None:
        for name, value in delta.items():
            if name == "tool_calls":
                for position, piece in enumerate(value or ()):
                    index = piece.get("index", position)
                    self.tool_calls.setdefault(index, _Call()).add(piece, piece.get("function") or {})
            elif name == "function_call":
                if value is not None:
                    self.function_call = self.function_call or _Call()
                    self.function_call.add({}, value)
            elif isinstance(value, str) and name != "role":
                self.strings.setdefault(name, []).append(value)
            elif value is not None or name not in self.message:
                self.message[name] = value

    def as_completion(self) -> _Object:
        return {"text": "".join(self.text), "logprobs": self.logprobs, **self.fields}

    def as_chat(self) -> _Object:
        message = self.message | {name: "".join(parts) for name, parts in self.strings.items()}
        if self.tool_calls:
            message["tool_calls"] = [call.as_tool() for _, call in sorted(self.tool_calls.items())]
        if self.function_call is not None:
            message["function_call"] = self.function_call.as_function()
        if message["content"] is None and self.function_call is None:
            message["content"] = ""
        whole = {**self.fields, "message": message}
        return whole if self.logprobs is None else whole | {"logprobs": self.logprobs}

    def _add_logprobs(self, piece: _Object | None) -> None:
        """Lists are joined; OpenAI's older form for completions has several of them."""
        if piece is None:
            return
        whole = self.logprobs = self.logprobs or {}
        for name, value in piece.items():
            if isinstance(value, list) and isinstance(whole.get(name), list):
                whole[name] += value
            else:
                whole[name] = value


class _Call:
    """One tool call in the making: its arguments come in pieces, the rest once."""

    def __init__(self) -> None:
        self._fields: _Object = {"type": "function"}
        self._function: _Object = {"name": ""}
        self._arguments: list[str] = []

    def add(self, piece: _Object, function: _Object) -> None:
        for name, value in piece.items():
            if name not in ("index", "function") and value:
                self._fields[name] = value
        for name, value in function.items():
            if name == "arguments":
                self._arguments.append(value or "")
            elif value:
                self._function[name] = value

    def as_tool(self) -> _Object:
        return {**self._fields, "function": self.as_function()}

    def as_function(self) -> _Object:
        return {**self._function, "arguments": "".join(self._arguments)}


class WholeCompletion(StreamedAnswer):
    """`/v1/completions`."""

    takes_usage_option = True

    def __init__(self) -> None:
        super().__init__()
        self._choices: dict[int, _Choice] = {}
        self._tops: dict[int, _Object] = {}  # the other fields of each choice's chunks
        self._last_finished = 0

    @staticmethod
    def _is_end(data: bytes) -> bool:
        return data.strip() == b"[DONE]"

    def _take(self, event: _Object) -> None:
        choices = event.pop("choices", None) or ()
        # Usage and timings come after a choice's end in a chunk without choices: with several choices
        # each has its own, and a whole answer of llama.cpp tells those of the first.
        index = self._last_finished
        for piece in choices:
            index = piece.get("index", 0)
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice(index)
            choice.add_fields(piece)
            if delta := piece.get("delta"):
                choice.add_delta(delta)
            if piece.get("finish_reason") is not None:
                self._last_finished = index
        if event.get("usage", 0) is None:
            del event["usage"]
        self._tops.setdefault(index, {}).update(event)

    def _whole(self) -> _Object:
        top = self._tops[min(self._tops)] if self._tops else {}
        for name in _NOT_IN_WHOLE:
            top.pop(name, None)
        ordered = (choice for _, choice in sorted(self._choices.items()))
        return {**self._top_and_kind(top), "choices": [self._shape(choice) for choice in ordered]}

    def _top_and_kind(self, top: _Object) -> _Object:
        return top

    def _shape(self, choice: _Choice) -> _Object:
        return choice.as_completion()


class WholeChat(WholeCompletion):
    """`/v1/chat/completions`."""

    def _top_and_kind(self, top: _Object) -> _Object:
        return top | {"object": "chat.completion"}

    def _shape(self, choice: _Choice) -> _Object:
        return choice.as_chat()
