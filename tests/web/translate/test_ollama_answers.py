"""Ollama's own answers and failures as OpenAI's clients know them, field by field."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest

from tests.web.native_words import (
    ASK,
    AT_S,
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    exchange,
    line,
    said,
    streamed,
    whole,
)
from tray_valet.core.errors import UpstreamFailed

ChatFields = dict[str, Any]


def test_a_whole_chat_comes_back() -> None:
    made = exchange(CHAT, messages=ASK)
    assert made.head(200) == (200, b"application/json")
    answer = whole(made, said("Hello", done=True, done_reason="stop", thinking="hm"))
    assert answer.pop("id").startswith("chatcmpl-")
    assert answer == {
        "object": "chat.completion",
        "created": AT_S,
        "model": "m",
        "system_fingerprint": "fp_ollama",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "reasoning": "hm"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }


def native_call(index: int | None, **rest: Any) -> ChatFields:
    function = {"name": "f", "arguments": {"b": 1, "a": [2]}}
    return {"function": function | ({} if index is None else {"index": index}), **rest}


def test_tool_calls_come_back_as_openai_writes_them() -> None:
    calls = [native_call(0, id="call_1"), native_call(1, id="call_2")]
    answer = whole(exchange(CHAT, messages=ASK), said(done=True, done_reason="stop", tool_calls=calls))
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][1] == {
        "id": "call_2",
        "index": 1,
        "type": "function",
        "function": {"name": "f", "arguments": '{"b":1,"a":[2]}'},
    }


def test_tool_calls_of_an_older_ollama_get_ids_and_indexes() -> None:
    events = streamed(
        exchange(CHAT, messages=ASK, stream=True),
        said(tool_calls=[native_call(None)]),
        said(tool_calls=[native_call(None)]),
        said(done=True, done_reason="stop"),
    )
    calls = [call for e in events[:2] for call in e["choices"][0]["delta"]["tool_calls"]]
    assert [call["index"] for call in calls] == [0, 1]
    assert len({call["id"] for call in calls}) == 2
    assert events[2]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("size", [1, 9, 10_000])
def test_a_streamed_chat_comes_back_in_openais_chunks(size: int) -> None:
    made = exchange(CHAT, messages=ASK, stream=True, stream_options={"include_usage": True})
    assert made.is_stream
    assert made.head(200) == (200, b"text/event-stream")
    lines = (
        said(thinking="hm"),
        said("He", thinking="m"),
        said("llo", logprobs=[{"token": "llo", "logprob": -0.5}]),
        said(done=True, done_reason="length"),
    )
    *chunks, end = streamed(made, *lines, size=size)
    assert end == b"[DONE]"
    assert {(c["object"], c["created"], c["model"], c["id"]) for c in chunks} == {
        ("chat.completion.chunk", AT_S, "m", chunks[0]["id"])
    }
    assert [c["choices"] for c in chunks] == [
        [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "", "reasoning": "hm"},
                "finish_reason": None,
            }
        ],
        [{"index": 0, "delta": {"reasoning": "m"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "He"}, "finish_reason": None}],
        [
            {
                "index": 0,
                "delta": {"content": "llo"},
                "finish_reason": None,
                "logprobs": {"content": [{"token": "llo", "logprob": -0.5}]},
            }
        ],
        [{"index": 0, "delta": {}, "finish_reason": "length"}],
        [],
    ]
    assert chunks[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert all("usage" not in chunk for chunk in chunks[:-1])


def test_each_line_goes_out_when_it_is_there() -> None:
    made = exchange(CHAT, messages=ASK, stream=True)
    first = said("He")
    assert made.feed(first[:-1]) == b""
    assert b'"content":"He"' in made.feed(first[-1:])


def test_an_empty_stream_still_opens_with_the_role() -> None:
    events = streamed(exchange(CHAT, messages=ASK, stream=True), said(done=True, done_reason="stop"))
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[1]["choices"][0]["finish_reason"] == "stop"
    assert events[2] == b"[DONE]"


def test_completions_come_back() -> None:
    answer = whole(
        exchange(COMPLETIONS, prompt="Hi"),
        line(response="Hello", done=True, done_reason="length", prompt_eval_count=2, eval_count=1),
    )
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [{"text": "Hello", "index": 0, "finish_reason": "length"}]
    assert answer["usage"]["total_tokens"] == 3
    events = streamed(
        exchange(COMPLETIONS, prompt="Hi", stream=True, stream_options={"include_usage": True}),
        line(response="He", done=False),
        line(response="", done=True, done_reason="stop", prompt_eval_count=2, eval_count=1),
    )
    assert [e["choices"] for e in events[:-1]] == [
        [{"text": "He", "index": 0, "finish_reason": None}],
        [{"text": "", "index": 0, "finish_reason": "stop"}],
        [],
    ]
    assert events[-2]["usage"]["total_tokens"] == 3


def test_vectors_come_back_as_they_were_or_as_base64() -> None:
    answer = b'{"model":"m","embeddings":[[0.5,-1.250],[1e-9]],"prompt_eval_count":4}'
    made = exchange(EMBEDDINGS, input=["a", "b"])
    made.feed(answer)
    told = made.finish()
    assert b"[0.5,-1.250]" in told
    assert msgspec.json.decode(told) == {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": [0.5, -1.25], "index": 0},
            {"object": "embedding", "embedding": [1e-9], "index": 1},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    made = exchange(EMBEDDINGS, input=["a", "b"], encoding_format="base64")
    packed = base64.b64decode(whole(made, answer)["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == (0.5, -1.25)


@pytest.mark.parametrize(
    ("status", "body", "message", "kind"),
    [
        (404, b'{"error":"model \'x\' not found"}', "model 'x' not found", "not_found_error"),
        (400, b'{"error":"invalid option"}', "invalid option", "invalid_request_error"),
        (500, b"llama runner died\n", "llama runner died", "api_error"),
        (503, b"", "Ollama answered 503.", "api_error"),
        (500, b'["odd"]', '["odd"]', "api_error"),
        (500, b'"caf\xe9"', '"caf\ufffd"', "api_error"),
    ],
)
def test_errors_come_back_as_openai_writes_them(status: int, body: bytes, message: str, kind: str) -> None:
    made = exchange(CHAT, messages=ASK, stream=True)
    assert made.head(status) == (status, b"application/json")
    error = msgspec.json.decode(made.error(status, body))["error"]
    assert (error["message"], error["type"], error["param"]) == (message, kind, None)
    assert error["code"] == ("model_not_found" if status == 404 else None)


def test_an_error_that_has_openais_shape_stays() -> None:
    body = b'{"error": {"message": "no", "code": 1}}'
    assert exchange(CHAT, messages=ASK).error(400, body) == body


def test_an_error_in_mid_stream_is_told_once_and_ends_it() -> None:
    made = exchange(CHAT, messages=ASK, stream=True)
    events = streamed(made, said("He"), b'{"error":"runner died"}\n', said("llo"), said(done=True))
    assert made.failed == "runner died"
    assert len(events) == 2
    assert events[1]["error"]["message"] == "runner died"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize(
    "answer", [b'{"error":"runner died"}', b"", b'{"model":', b"[]", b'{"model":"\xe9"}']
)
def test_a_whole_answer_that_is_none_is_a_failure(path: str, answer: bytes) -> None:
    made = exchange(path, messages=ASK, prompt="Hi", input="Hi")
    made.feed(answer)
    with pytest.raises(UpstreamFailed):
        made.finish()


@pytest.mark.parametrize("begun", [b"", said("He"), said("He") + b'{"model"'])
def test_a_stream_that_breaks_off_is_a_failure(begun: bytes) -> None:
    made = exchange(CHAT, messages=ASK, stream=True)
    made.feed(begun)
    if begun.endswith(b"\n") or not begun:
        with pytest.raises(UpstreamFailed, match="broke off"):
            made.finish()
    else:
        assert b'"error"' in made.finish()
        assert made.failed
