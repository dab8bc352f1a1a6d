"""Ollama's command to unload: a request for nothing with `keep_alive` 0, and the answer to it.

Decides: the shape, which is Ollama's. Must not: unload.
Source: Ollama's `server/routes.go` (`GenerateHandler`, `ChatHandler`: `DoneReason: "unload"`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from tray_valet.core.dialects import OLLAMA_CHAT
from tray_valet.web.edge.wire_units import utc_text


def unloaded_answer(path: str, model: str, now: float) -> bytes:
    """The whole answer, as JSON. `model`: as the client named it; `now` in Unix seconds."""
    answer: dict[str, Any] = {
        "model": model,
        "created_at": utc_text(now),
    }
    if path == OLLAMA_CHAT:
        answer["message"] = {"role": "assistant", "content": ""}
    else:
        answer["response"] = ""
    return msgspec.json.encode({**answer, "done": True, "done_reason": "unload"})
