"""What the tests of OpenAI's requests over Ollama's own routes share: how both sides write things."""

from __future__ import annotations

from typing import Any

import msgspec

from tray_valet.web.translate.ollama_native import NativeExchange, native_exchange

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
ASK = [{"role": "user", "content": "Hi"}]
AT = "2026-11-21T08:02:20.123456789Z"
AT_S = 1795248140


def fields_of(**values: Any) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(msgspec.json.encode(values), type=dict[str, msgspec.Raw])


def exchange(
    path: str, context_length: int | None = None, keep_alive_s: float | None = None, **values: Any
) -> NativeExchange:
    made = native_exchange(
        path, fields_of(**values), model="m", context_length=context_length, keep_alive_s=keep_alive_s
    )
    assert made is not None
    return made


def body_of(path: str, **values: Any) -> Any:
    return msgspec.json.decode(exchange(path, **values).body)


def line(**values: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "created_at": AT, **values}) + b"\n"


def said(content: str = "", *, done: bool = False, **rest: Any) -> bytes:
    top = {name: rest.pop(name) for name in ("done_reason", "logprobs") if name in rest}
    counts = {"prompt_eval_count": 5, "eval_count": 3} if done else {}
    return line(message={"role": "assistant", "content": content, **rest}, done=done, **top, **counts)


def events_in(stream: bytes) -> list[Any]:
    assert stream.endswith(b"\n\n")
    data = [part.removeprefix(b"data: ") for part in stream.split(b"\n\n")[:-1]]
    return [part if part == b"[DONE]" else msgspec.json.decode(part) for part in data]


def streamed(made: NativeExchange, *lines: bytes, size: int = 9) -> list[Any]:
    stream = b"".join(lines)
    told = b"".join(made.feed(stream[start : start + size]) for start in range(0, len(stream), size))
    return events_in(told + made.finish())


def whole(made: NativeExchange, answer: bytes) -> Any:
    assert made.feed(answer[:7]) == made.feed(answer[7:]) == b""
    return msgspec.json.decode(made.finish())
