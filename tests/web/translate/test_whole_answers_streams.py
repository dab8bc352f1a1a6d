"""Whole answers from streams as the APIs' references write them: pieces, ends, errors, requests."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tray_valet.core.errors import UpstreamFailed
from tray_valet.web.translate.whole_answers import WholeAnswer, assembler_for

CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)
DONE = b"data: [DONE]\n\n"


def assembler(path: str) -> WholeAnswer:
    made = assembler_for(path)
    assert made is not None
    return made


def event(value: Any, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(value) + b"\n\n"


def chat_chunk(index: int = 0, reason: str | None = None, **delta: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return event(
        {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m", "choices": [choice]}
    )


def whole(path: str, *stream: bytes, size: int | None = None) -> Any:
    made, data = assembler(path), b"".join(stream)
    for start in range(0, len(data), size or len(data)):
        made.feed(data[start : start + (size or len(data))])
    assert made.error is None
    return msgspec.json.decode(made.finish())


MESSAGE_STREAM = (
    event({"type": "ping"}, "ping"),
    event(
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 25, "output_tokens": 1},
            },
        },
        "message_start",
    ),
    event({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
    event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Well"}}
    ),
    event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": ", yes"}}
    ),
    event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQ"}}
    ),
    event({"type": "content_block_stop", "index": 0}),
    event({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
    event({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Okay"}}),
    event({"type": "content_block_stop", "index": 1}),
    event(
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
        }
    ),
    event(
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}}
    ),
    event(
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": '{"at":'},
        }
    ),
    event(
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": ' "Rome"}'},
        }
    ),
    event({"type": "content_block_stop", "index": 2}),
    event(
        {
            "type": "content_block_start",
            "index": 3,
            "content_block": {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
        }
    ),
    event({"type": "content_block_stop", "index": 3}),
    event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 89},
        }
    ),
    event({"type": "message_stop"}, "message_stop"),
)


@pytest.mark.parametrize("size", [1, 2, 7, 64, None])
def test_a_message_is_put_together_whatever_its_pieces(size: int | None) -> None:
    assert whole(MESSAGES, *MESSAGE_STREAM, size=size) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Well, yes", "signature": "EqQ"},
            {"type": "text", "text": "Okay"},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"at": "Rome"}},
            {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "output_tokens": 89},
    }


def test_several_tool_calls_are_told_apart_by_their_index() -> None:
    def call(index: int, arguments: str, **rest: Any) -> bytes:
        function = {"arguments": arguments} | ({"name": rest.pop("name")} if "name" in rest else {})
        return chat_chunk(tool_calls=[{"index": index, "function": function, **rest}])

    answer = whole(
        CHAT,
        chat_chunk(role="assistant", content=None),
        call(0, "", id="call_a", type="function", name="f"),
        call(1, "", id="call_b", type="function", name="g"),
        call(0, '{"x":'),
        call(1, "{}"),
        call(0, "1}"),
        chat_chunk(reason="tool_calls"),
        DONE,
    )
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_thoughts_refusals_and_unknown_texts_add_up() -> None:
    answer = whole(
        CHAT,
        chat_chunk(role="assistant", content="", reasoning_content="Hm"),
        chat_chunk(reasoning_content="m", refusal="No"),
        chat_chunk(content="A", refusal=".", aside="x"),
        chat_chunk(content="B", aside="y", mood={"calm": 1}),
        chat_chunk(reason="stop"),
        DONE,
    )
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": "AB",
        "reasoning_content": "Hmm",
        "refusal": "No.",
        "aside": "xy",
        "mood": {"calm": 1},
    }


def test_log_probabilities_add_up() -> None:
    def chunk(text: str, logprobs: Any) -> bytes:
        return event({"choices": [{"index": 0, "delta": {"content": text}, "logprobs": logprobs}]})

    answer = whole(
        CHAT,
        chunk("a", {"content": [{"token": "a", "logprob": -0.1}], "refusal": None}),
        chunk("b", {"content": [{"token": "b", "logprob": -1e-9}], "refusal": None}),
        chunk("", None),
        DONE,
    )
    tokens = answer["choices"][0]["logprobs"]["content"]
    assert [(t["token"], t["logprob"]) for t in tokens] == [("a", -0.1), ("b", -1e-9)]


def test_each_of_two_choices_gets_its_own_pieces_and_the_first_ones_usage_counts() -> None:
    """As llama.cpp sends it: interleaved, the usage of each right after its end."""

    def usage(total: int) -> bytes:
        return event({"choices": [], "usage": {"total_tokens": total}, "timings": {"predicted_n": total}})

    answer = whole(
        CHAT,
        chat_chunk(1, content="one"),
        chat_chunk(0, content="zero"),
        chat_chunk(1, "stop"),
        usage(11),
        chat_chunk(0, content="!"),
        chat_chunk(0, "length"),
        usage(10),
        DONE,
    )
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in answer["choices"]] == [
        (0, "zero!", "length"),
        (1, "one", "stop"),
    ]
    assert answer["usage"] == {"total_tokens": 10}
    assert answer["timings"] == {"predicted_n": 10}


def test_unknown_fields_and_long_numbers_survive_and_progress_does_not() -> None:
    answer = whole(
        CHAT,
        b'data: {"choices":[{"index":0,"delta":{"content":"x"},"score":7}],"usage":null,'
        b'"prompt_progress":{"total":9}}\n\n',
        b'data: {"choices":[],"usage":{"total_tokens":3},"big":123456789012345678901234567890,'
        b'"__verbose":{"a":1}}\n\n',
        b'data: {"choices":[],"usage":null}\n\n',
        DONE,
    )
    assert answer["big"] == 123456789012345678901234567890
    assert answer["__verbose"] == {"a": 1}
    assert answer["usage"] == {"total_tokens": 3}
    assert answer["choices"][0]["score"] == 7
    assert "prompt_progress" not in answer


def test_a_completion_keeps_openais_older_log_probabilities() -> None:
    def chunk(text: str, logprobs: Any, reason: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return event({"id": "cmpl-1", "object": "text_completion", "choices": [choice]})

    answer = whole(
        COMPLETIONS,
        chunk("a", {"tokens": ["a"], "token_logprobs": [-0.5], "text_offset": [0]}),
        chunk("b", {"tokens": ["b"], "token_logprobs": [-0.25], "text_offset": [1]}, "length"),
        DONE,
    )
    (choice,) = answer["choices"]
    assert answer["object"] == "text_completion"
    assert choice["text"] == "ab"
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.5, -0.25],
        "text_offset": [0, 1],
    }


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_the_last_event_carries_a_response(status: str) -> None:
    response = {"id": "r", "status": status, "created_at": 5, "output": [], "extra": [1]}
    answer = whole(
        RESPONSES,
        event(
            {"type": "response.created", "response": {"id": "r", "status": "in_progress"}}, "response.created"
        ),
        event({"type": "response.output_text.delta", "delta": "x"}),
        event({"type": f"response.{status}", "response": response}, f"response.{status}"),
    )
    assert answer == response | ({"completed_at": 5} if status == "completed" else {})


ENGINE_ERROR = {"error": {"code": 500, "message": "out of cells", "type": "server_error"}}


@pytest.mark.parametrize(
    ("path", "told", "status", "message"),
    [
        (CHAT, event(ENGINE_ERROR), 500, "out of cells"),
        (CHAT, b"error: " + msgspec.json.encode(ENGINE_ERROR["error"]) + b"\n\n", 500, "out of cells"),
        (CHAT, event({"error": {"code": 503, "message": "loading"}}), 503, "loading"),
        (CHAT, event({"error": {"code": "x", "message": "no", "type": "invalid_request_error"}}), 400, "no"),
        (CHAT, event({"error": "just words"}), 500, "just words"),
        (COMPLETIONS, event({"error": {"code": 4, "message": "odd"}}), 500, "odd"),
        (RESPONSES, event({"type": "error", "code": None, "message": "bad"}, "error"), 500, "bad"),
        (
            MESSAGES,
            event({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, "error"),
            529,
            "busy",
        ),
        (CHAT, b"data: {broken\n\n", 500, "malformed"),
        (CHAT, event({"choices": [3]}), 500, "malformed"),
        (CHAT, event({"choices": [{"delta": {"tool_calls": [[]]}}]}), 500, "malformed"),
        (CHAT, b'data: {"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}\n\n", 500, "malformed"),
        (MESSAGES, event({"type": "message_delta", "delta": 3}), 500, "malformed"),
    ],
)
def test_an_error_in_the_stream_is_the_answer(path: str, told: bytes, status: int, message: str) -> None:
    made = assembler(path)
    made.feed(told + DONE)
    made.feed(chat_chunk(content="late"))
    assert made.error is not None
    assert made.error[0] == status
    inner = msgspec.json.decode(made.error[1])["error"]
    assert message in (inner if isinstance(inner, str) else inner["message"])
    with pytest.raises(UpstreamFailed, match=message):
        made.finish()


@pytest.mark.parametrize(
    ("path", "begun"),
    [
        (CHAT, b""),
        (CHAT, chat_chunk(content="half")),
        (CHAT, chat_chunk(reason="stop") + b"data: [DO"),
        (COMPLETIONS, event({"choices": [{"index": 0, "text": "half"}]})),
        (RESPONSES, event({"type": "response.created", "response": {"status": "in_progress"}})),
        (MESSAGES, b"".join(MESSAGE_STREAM[:-1])),
    ],
)
def test_a_stream_without_its_end_is_no_answer(path: str, begun: bytes) -> None:
    made = assembler(path)
    made.feed(begun)
    assert made.error is None
    with pytest.raises(UpstreamFailed, match="broke off"):
        made.finish()


def test_an_input_that_was_cut_off_is_empty_as_llama_cpp_has_it() -> None:
    stream = list(MESSAGE_STREAM)
    del stream[13]  # the rest of the first call's input
    assert whole(MESSAGES, *stream)["content"][2]["input"] == {}
