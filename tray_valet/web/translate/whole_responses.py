"""Whole answers of `/v1/responses`: the stream's last event carries them.

Decides: which events end a stream, and what the last one lacks against an answer that was asked for whole.
Must not: add up the deltas before it; they say nothing else.
Sources: OpenAI's API reference ("Streaming events"); llama.cpp's `server-task.cpp`
(`to_json_oaicompat_resp` against `to_json_oaicompat_resp_stream`).
"""

from __future__ import annotations

from typing import Any

from tray_valet.web.translate.streamed_answer import StreamedAnswer

_Object = dict[str, Any]
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_COMPLETED = "completed"


class WholeResponse(StreamedAnswer):
    """`/v1/responses`."""

    def __init__(self) -> None:
        super().__init__()
        self._response: _Object = {}

    def _take(self, event: _Object) -> None:
        if event.get("type") in _ENDS and isinstance(event.get("response"), dict):
            self._response, self._is_ended = event["response"], True

    def _whole(self) -> _Object:
        response = self._response
        if response.get("status") == _COMPLETED:
            response.setdefault("completed_at", response.get("created_at"))
            for item in response.get("output") or ():
                if item.get("type") == "reasoning":
                    item.setdefault("status", _COMPLETED)
        return response
