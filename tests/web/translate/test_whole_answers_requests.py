"""Which requests can be streamed and still be answered whole, and what they then say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.web.native_words import fields_of
from tray_valet.web.translate.whole_answers import WholeAnswer, assembler_for, can_stream_whole

CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)


def assembler(path: str) -> WholeAnswer:
    made = assembler_for(path)
    assert made is not None
    return made


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_the_request_asks_for_a_stream_and_is_otherwise_untouched(path: str) -> None:
    text = b'{"temperature": 1.00, "seed":123456789012345678901234567890,"stream":null,"x":{"y" : [1.0]}}'
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    asked = assembler(path).request_fields(fields)
    changed = {"stream", "stream_options"} if path in (CHAT, COMPLETIONS) else {"stream"}
    assert bytes(asked["stream"]) == b"true"
    assert {name: asked[name] for name in asked if name not in changed} == {
        name: fields[name] for name in fields if name != "stream"
    }
    assert ("stream_options" in asked) == ("stream_options" in changed)
    assert bytes(fields["stream"]) == b"null"  # the client's own are left as they were


@pytest.mark.parametrize("options", [None, 3, {"include_usage": False, "other": 1}])
def test_the_usage_is_always_asked_for(options: Any) -> None:
    asked = assembler(CHAT).request_fields(fields_of(stream_options=options))
    kept = {"other": 1} if isinstance(options, dict) else {}
    assert msgspec.json.decode(asked["stream_options"]) == kept | {"include_usage": True}


@pytest.mark.parametrize(
    ("path", "values", "can"),
    [
        (CHAT, {}, True),
        (CHAT, {"stream": False, "n": 3, "logprobs": False, "verbose": None}, True),
        (CHAT, {"response_format": {"type": "json_object"}, "tools": [{}], "timings_per_token": True}, True),
        (CHAT, {"stream": True}, False),
        (CHAT, {"logprobs": True}, False),
        (CHAT, {"n_probs": 3}, False),
        (CHAT, {"verbose": True}, False),
        (CHAT, {"reasoning_format": "deepseek-legacy"}, False),
        (CHAT, {"reasoning_format": "none"}, True),
        (CHAT, {"messages": [{"role": "assistant", "content": "Hi"}, {"role": "user"}]}, True),
        (CHAT, {"messages": [{"role": "user"}, {"role": "assistant", "content": "We"}]}, False),
        (CHAT, {"messages": [3]}, True),
        (CHAT, {"messages": "Hi"}, True),
        (COMPLETIONS, {"logprobs": 0}, True),
        (COMPLETIONS, {"logprobs": 5}, False),
        (RESPONSES, {"input": "Hi"}, True),
        (RESPONSES, {"input": [{"type": "message", "role": "assistant", "content": "We"}]}, True),
        (MESSAGES, {}, True),
        (MESSAGES, {"messages": [{"role": "assistant", "content": "We"}]}, False),
        ("/v1/embeddings", {}, False),
        ("/v1/rerank", {}, False),
        ("/v1/messages/count_tokens", {}, False),
        ("/api/chat", {}, False),
    ],
)
def test_which_requests_come_out_the_same(path: str, values: dict[str, Any], can: bool) -> None:
    assert can_stream_whole(path, fields_of(**values)) is can


@pytest.mark.parametrize(
    "body",
    [b'{"logprobs":"\xe9"}', b'{"messages":[{"role":"\xe9"}]}', b'{"stream_options":{"\xe9":1}}'],
)
def test_text_in_another_encoding_than_utf8_is_left_to_the_engine_to_refuse(body: bytes) -> None:
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    assert can_stream_whole(CHAT, fields) is True
    assert bytes(assembler(CHAT).request_fields(fields)["stream"]) == b"true"


def test_other_paths_have_no_assembler() -> None:
    assert assembler_for("/v1/embeddings") is None
    assert assembler_for("/api/chat") is None
