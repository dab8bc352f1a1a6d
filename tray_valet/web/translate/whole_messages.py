"""Whole answers of Anthropic's `/v1/messages`, put together from their events.

Decides: how content blocks and their deltas add up to a message. Must not: read the stream itself.
Sources: Anthropic's API reference ("Streaming messages"); llama.cpp's `server-task.cpp`
(`to_json_anthropic` against `to_json_anthropic_stream`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from tray_valet.web.edge.json_faults import MALFORMED
from tray_valet.web.translate.streamed_answer import StreamedAnswer

_Object = dict[str, Any]
# The field of a block that each kind of delta makes longer.
_FIELD_OF_DELTA = {"text_delta": "text", "thinking_delta": "thinking"}


class _Block:
    """One content block in the making."""

    def __init__(self, start: _Object) -> None:
        self._fields = start
        self._pieces: dict[str, list[str]] = {}
        self._input: list[str] = []

    def add(self, delta: _Object) -> None:
        kind = str(delta.get("type"))
        if field := _FIELD_OF_DELTA.get(kind):
            self._pieces.setdefault(field, []).append(delta.get(field) or "")
        elif kind == "input_json_delta":
            self._input.append(delta.get("partial_json") or "")
        elif kind == "signature_delta":
            self._fields["signature"] = delta.get("signature", "")
        elif kind == "citations_delta":
            self._fields["citations"] = [*(self._fields.get("citations") or ()), delta.get("citation")]

    def whole(self) -> _Object:
        for field, pieces in self._pieces.items():
            self._fields[field] = (self._fields.get(field) or "") + "".join(pieces)
        if self._input or str(self._fields.get("type")).endswith("tool_use"):
            self._fields["input"] = self._whole_input()
        return self._fields

    def _whole_input(self) -> Any:
        """The input as it was written; an engine that is cut off in it answers an empty one."""
        text = "".join(self._input)
        if not text.strip():
            return self._fields.get("input") or {}
        try:
            msgspec.json.decode(text)
        except MALFORMED:
            return {}
        return msgspec.Raw(text.encode())


class WholeMessage(StreamedAnswer):
    """`/v1/messages`."""

    def __init__(self) -> None:
        super().__init__()
        self._message: _Object = {}
        self._blocks: dict[int, _Block] = {}

    def _take(self, event: _Object) -> None:
        match event.get("type"):
            case "content_block_delta":
                if block := self._blocks.get(event.get("index", 0)):
                    block.add(event.get("delta") or {})
            case "content_block_start":
                self._blocks[event.get("index", 0)] = _Block(event.get("content_block") or {})
            case "message_start":
                self._message = event.get("message") or {}
            case "message_delta":
                self._add_delta(event)
            case "message_stop":
                self._is_ended = True

    def _add_delta(self, event: _Object) -> None:
        self._message |= event.get("delta") or {}
        usage = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
        self._message["usage"] = (self._message.get("usage") or {}) | usage

    def _whole(self) -> _Object:
        blocks = [block.whole() for _, block in sorted(self._blocks.items())]
        return {"type": "message", "role": "assistant", **self._message, "content": blocks}
