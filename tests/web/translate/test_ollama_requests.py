"""OpenAI's requests in Ollama's own words, field by field."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from tests.web.native_words import (
    ASK,
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    body_of,
    exchange,
    fields_of,
)
from tray_valet.core.errors import InvalidValue
from tray_valet.web.translate.ollama_native import native_exchange

PIXEL = "iVBORw0KGgoAAAANSUhEUg=="
ChatFields = dict[str, Any]


@pytest.mark.parametrize(
    ("path", "native"), [(CHAT, "/api/chat"), (COMPLETIONS, "/api/generate"), (EMBEDDINGS, "/api/embed")]
)
def test_each_path_has_its_own_there(path: str, native: str) -> None:
    made = exchange(path, messages=ASK, prompt="Hi", input="Hi")
    assert made.path == native
    assert msgspec.json.decode(made.body)["model"] == "m"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/rerank", "/api/chat", "/v1/models"])
def test_other_paths_cannot_be_said_there(path: str) -> None:
    assert (
        native_exchange(path, fields_of(messages=ASK), model="m", context_length=1, keep_alive_s=1.0) is None
    )


@pytest.mark.parametrize(
    ("keep_alive_s", "native"),
    [(None, None), (0, 0), (90.5, "90.500s"), (3600, "3600.000s"), (math.inf, -1), (-1, -1), (1e12, -1)],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS])
def test_context_and_time_to_live_reach_ollama(path: str, keep_alive_s: float | None, native: Any) -> None:
    body = body_of(
        path, context_length=2048, keep_alive_s=keep_alive_s, messages=ASK, prompt="Hi", input="Hi"
    )
    assert body["options"]["num_ctx"] == 2048
    assert body.get("keep_alive") == native
    assert ("keep_alive" in body) == (native is not None)


def test_an_empty_completion_never_becomes_the_command_to_unload() -> None:
    assert body_of(COMPLETIONS, keep_alive_s=0, prompt="")["keep_alive"] == "1.000s"


def test_a_chat_without_wishes_has_openais_defaults() -> None:
    assert body_of(CHAT, messages=ASK) == {
        "model": "m",
        "messages": ASK,
        "stream": False,
        "options": {"temperature": 1.0, "top_p": 1.0},
    }


def test_a_completion_without_wishes_has_openais_defaults() -> None:
    options = {"temperature": 1.0, "top_p": 1.0, "frequency_penalty": 0, "presence_penalty": 0}
    assert body_of(COMPLETIONS, prompt="Hi") == {
        "model": "m",
        "prompt": "Hi",
        "stream": False,
        "options": options,
    }


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": None, "top_p": 0.5}, {"temperature": 1.0, "top_p": 0.5}),
        ({"seed": 42}, {"seed": 42}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop": ["x", "y"]}),
        ({"max_tokens": 7}, {"num_predict": 7}),
        ({"max_completion_tokens": 9}, {"num_predict": 9}),
        ({"max_tokens": 7, "max_completion_tokens": 9}, {"num_predict": 9}),
        ({"max_tokens": None}, {}),
        (
            {"frequency_penalty": 0.5, "presence_penalty": -1},
            {"frequency_penalty": 0.5, "presence_penalty": -1},
        ),
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_sampling_becomes_options(path: str, asked: ChatFields, options: dict[str, Any]) -> None:
    told = body_of(path, messages=ASK, prompt="Hi", **asked)["options"]
    plain = body_of(path, messages=ASK, prompt="Hi")["options"]
    assert told == plain | options


@pytest.mark.parametrize(
    ("asked", "think"),
    [
        ({}, None),
        ({"reasoning_effort": None}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "medium"}, "medium"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning": {"effort": "high"}}, "high"),
        ({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, "high"),
        ({"reasoning": {}, "reasoning_effort": "low"}, None),
    ],
)
def test_effort_becomes_thinking(asked: ChatFields, think: str | bool | None) -> None:
    assert body_of(CHAT, messages=ASK, **asked).get("think") == think


def test_the_form_of_the_answer_becomes_its_format() -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    assert body_of(CHAT, messages=ASK, response_format=wanted)["format"] == schema
    assert body_of(CHAT, messages=ASK, response_format={"type": "json_object"})["format"] == "json"
    for form in ({"type": "text"}, {"type": "json_schema"}, {}, None):
        assert "format" not in body_of(CHAT, messages=ASK, response_format=form)


def test_log_probabilities_are_asked_for() -> None:
    body = body_of(CHAT, messages=ASK, logprobs=True, top_logprobs=3)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)
    body = body_of(COMPLETIONS, prompt="Hi", logprobs=2, suffix="!")
    assert (body["logprobs"], body["top_logprobs"], body["suffix"]) == (True, 2, "!")
    assert "logprobs" not in body_of(COMPLETIONS, prompt="Hi", logprobs=0)


def test_tools_are_passed_on_byte_for_byte() -> None:
    tools = b'[{"type":"function","function":{"name":"f","parameters":{"n" : 1.00}}}]'
    fields = fields_of(messages=ASK) | {"tools": msgspec.Raw(tools)}
    made = native_exchange(CHAT, fields, model="m", context_length=None, keep_alive_s=None)
    assert made is not None
    assert b'"tools":' + tools in made.body


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1.50, "a": "x"}'}}


@pytest.mark.parametrize(
    ("message", "native"),
    [
        ({"role": "system", "content": "Be kind"}, [{"role": "system", "content": "Be kind"}]),
        ({"role": "user", "content": []}, []),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}],
            },
            [{"role": "user", "content": "", "images": [PIXEL]}],
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": f"data:;base64,{PIXEL}"}]},
            [{"role": "user", "content": "", "images": [PIXEL]}],
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_audio", "input_audio": {"data": PIXEL, "format": "wav"}}],
            },
            [{"role": "user", "content": "", "images": [PIXEL]}],
        ),
        (
            {"role": "assistant", "content": "Hm", "reasoning": "well"},
            [{"role": "assistant", "content": "Hm", "thinking": "well"}],
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            [
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [
                        {"id": "c1", "function": {"name": "f", "arguments": {"b": 1.5, "a": "x"}}}
                    ],
                }
            ],
        ),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "a"}], "tool_calls": [CALL]},
            [
                {
                    "role": "assistant",
                    "content": "a",
                    "tool_calls": [
                        {"id": "c1", "function": {"name": "f", "arguments": {"b": 1.5, "a": "x"}}}
                    ],
                }
            ],
        ),
        (
            {"role": "tool", "tool_call_id": "c9", "name": "g", "content": "3"},
            [{"role": "tool", "tool_call_id": "c9", "tool_name": "g", "content": "3"}],
        ),
    ],
)
def test_messages_are_said_in_ollamas_words(message: ChatFields, native: list[ChatFields]) -> None:
    assert body_of(CHAT, messages=[message])["messages"] == native


def test_a_tools_result_is_named_after_its_call() -> None:
    chat = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    assert body_of(CHAT, messages=chat)["messages"][2] == {
        "role": "tool",
        "tool_call_id": "c1",
        "tool_name": "f",
        "content": "3",
    }


def with_arguments(arguments: Any) -> list[ChatFields]:
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}]


def with_picture(url: Any) -> list[ChatFields]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


@pytest.mark.parametrize(
    ("path", "asked", "param"),
    [
        (CHAT, {}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": "Hi"}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": ["Hi"]}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages"),
        (CHAT, {"messages": with_picture("https://example.org/a.png")}, "messages"),
        (CHAT, {"messages": with_picture("data:image/tiff;base64," + PIXEL)}, "messages"),
        (CHAT, {"messages": with_picture("data:image/png;base64,@@@")}, "messages"),
        (CHAT, {"messages": with_picture(None)}, "messages"),
        (CHAT, {"messages": with_arguments("{broken")}, "messages"),
        (CHAT, {"messages": with_arguments("[1]")}, "messages"),
        (CHAT, {"messages": [{"role": "assistant", "content": "", "tool_calls": 3}]}, "messages"),
        (CHAT, {"messages": ASK, "temperature": "hot"}, "temperature"),
        (CHAT, {"messages": ASK, "max_tokens": 1.5}, "max_tokens"),
        (CHAT, {"messages": ASK, "stream": "yes"}, "stream"),
        (CHAT, {"messages": ASK, "reasoning_effort": "silly"}, "reasoning_effort"),
        (CHAT, {"messages": ASK, "reasoning": {"effort": "silly"}}, "reasoning.effort"),
        (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt"),
        (COMPLETIONS, {"prompt": [1, 2]}, "prompt"),
        (COMPLETIONS, {"prompt": "a", "stop": ["x", 1]}, "stop"),
        (EMBEDDINGS, {}, "input"),
        (EMBEDDINGS, {"input": []}, "input"),
        (EMBEDDINGS, {"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_ollama_would_refuse_is_refused_by_name(path: str, asked: ChatFields, param: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        exchange(path, **asked)
    assert refusal.value.param == param


def test_embeddings_are_asked_for_as_they_are() -> None:
    assert body_of(EMBEDDINGS, input=["a", "b"], dimensions=4) == {
        "model": "m",
        "input": ["a", "b"],
        "dimensions": 4,
    }
    assert body_of(EMBEDDINGS, input="")["input"] == [""]


def test_a_text_and_what_is_nested_too_deeply() -> None:
    text = b'"\\u00e9 \\/ <b>"'
    fields = {"messages": msgspec.Raw(b'[{"role":"user","content":%b}]' % text)}
    made = native_exchange(CHAT, fields, model="m", context_length=None, keep_alive_s=None)
    assert made is not None
    assert b'"content":' + text in made.body  # byte for byte
    deep = b"[" * 20_000 + b"]" * 20_000
    fields = {"messages": msgspec.Raw(b'[{"role":"user","content":%b}]' % deep)}
    with pytest.raises(InvalidValue):
        native_exchange(CHAT, fields, model="m", context_length=None, keep_alive_s=None)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, b'{"messages":[{"role":"user","content":"x"}],"stop":"\xe9"}', "stop"),
        (CHAT, b'{"messages":[{"role":"\xe9","content":"x"}]}', "messages"),
        (CHAT, b'{"messages":[{"role":"user","content":[{"type":"text","text":"\xe9"}]}]}', "messages"),
        (EMBEDDINGS, b'{"input":"x","encoding_format":"\xe9"}', "encoding_format"),
    ],
)
def test_text_in_another_encoding_than_utf8_is_refused(path: str, body: bytes, param: str) -> None:
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    with pytest.raises(InvalidValue) as caught:
        native_exchange(path, fields, model="m", context_length=4096, keep_alive_s=None)
    assert caught.value.param == param
