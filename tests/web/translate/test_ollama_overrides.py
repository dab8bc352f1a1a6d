"""What a route changes in requests that come in Ollama's own dialect."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from tests.web.native_words import ASK, fields_of
from tray_valet.core.dialects import OLLAMA_CHAT, OLLAMA_EMBED, OLLAMA_EMBEDDINGS, OLLAMA_GENERATE
from tray_valet.core.errors import InvalidValue
from tray_valet.web.translate.ollama_overrides import native_changes, native_overrides

ChatFields = dict[str, Any]
JSON = dict[str, msgspec.Raw]


@pytest.mark.parametrize(
    ("added", "strip", "options", "told"),
    [
        ({"temperature": 0.25}, (), {"temperature": 0.9, "seed": 1}, {"temperature": 0.25, "seed": 1}),
        ({"temperature": 0.25}, (), None, {"temperature": 0.25}),
        ({"max_tokens": 9}, (), {"num_predict": 500}, {"num_predict": 9}),
        ({"max_completion_tokens": 9}, (), {}, {"num_predict": 9}),
        ({"num_predict": 9, "mirostat": 2, "new_one": [1]}, (), {}, "as it is added"),
        ({"stop": "END"}, (), {"stop": ["a", "b"]}, {"stop": ["END"]}),
        ({"stop": ["END"]}, (), {}, {"stop": ["END"]}),
        ({"options": {"top_k": 5}}, (), {"top_k": 1, "seed": 1}, {"top_k": 5, "seed": 1}),
        ({"options": {"top_k": 5}, "top_k": 6}, (), {}, {"top_k": 6}),
        ({"options": None}, (), {"seed": 1}, None),
        ({}, ("user", "logit_bias", "temperature"), {"temperature": 0.9, "seed": 1}, {"seed": 1}),
        ({}, ("max_tokens",), {"num_predict": 500}, {}),
        ({}, ("temperature",), None, None),
        # What is stripped is the client's, and what is added under that very name.
        ({"num_predict": 9}, ("max_tokens",), {"num_predict": 500}, {"num_predict": 9}),
        ({"temperature": 1}, ("temperature",), {"temperature": 0.9, "seed": 1}, {"seed": 1}),
        ({"options": {"top_k": 5, "seed": 2}}, ("seed",), {"seed": 1}, {"top_k": 5}),
        ({"temperature": 1}, ("options",), {"seed": 1}, {"temperature": 1}),
    ],
)
def test_sampling_parameters_are_changed_where_ollama_looks_for_them(
    added: ChatFields, strip: tuple[str, ...], options: Any, told: Any
) -> None:
    asked = {"messages": ASK, "options": options}
    changed = native_changes(OLLAMA_CHAT, fields_of(**asked), added, strip)
    told = added if told == "as it is added" else told
    assert msgspec.json.decode(msgspec.json.encode(changed)) == asked | {"options": told}


@pytest.mark.parametrize(
    ("path", "beside"),
    [
        (OLLAMA_CHAT, {"tools": [], "stream": False, "format": "json", "think": False, "keep_alive": "5m"}),
        (OLLAMA_CHAT, {"messages": ASK, "logprobs": True, "top_logprobs": 2, "truncate": False}),
        (OLLAMA_GENERATE, {"prompt": "Hi", "suffix": "!", "system": "s", "template": "t", "raw": True}),
        (OLLAMA_GENERATE, {"images": [], "context": [1], "shift": False, "width": 64}),
        (OLLAMA_EMBED, {"input": "Hi", "truncate": False, "dimensions": 8, "keep_alive": 0}),
        (OLLAMA_EMBEDDINGS, {"prompt": "Hi", "keep_alive": 0}),
    ],
)
def test_fields_of_ollamas_requests_stand_beside_the_model(path: str, beside: ChatFields) -> None:
    asked = fields_of(**dict.fromkeys(beside, 1), kept=1)
    changed = native_changes(path, asked, beside, ())
    assert msgspec.json.decode(msgspec.json.encode(changed)) == {**beside, "kept": 1}
    assert native_changes(path, asked, {}, tuple(beside)) == fields_of(kept=1)


def test_what_is_a_field_of_another_path_only_goes_into_the_options() -> None:
    changed = native_changes(OLLAMA_EMBED, fields_of(input="Hi"), {"think": True}, ())
    assert changed["options"] == msgspec.Raw(b'{"think":true}')


def test_values_that_nothing_is_said_of_stay_as_they_were_written() -> None:
    options = b'{ "temperature":0.90, "seed":123456789012345678901234567890, "stop":[ "\\u00fc" ]}'
    asked = msgspec.json.decode(b'{"prompt": "\\u00fc", "options": %b}' % options, type=JSON)
    changed = native_changes(OLLAMA_GENERATE, asked, {"top_k": 1}, ("temperature",))
    assert changed["prompt"] == asked["prompt"]
    assert (
        bytes(changed["options"]) == b'{"seed":123456789012345678901234567890,"stop":[ "\\u00fc" ],"top_k":1}'
    )
    untouched = native_changes(OLLAMA_GENERATE, asked, {"raw": True}, ("logit_bias",))
    assert bytes(untouched["options"]) == options


@pytest.mark.parametrize("options", [b'"hot"', b"[1]", b"7", b'{"\xff": 1}'])
def test_options_that_are_no_object_are_refused_where_they_would_change(options: bytes) -> None:
    asked = msgspec.json.decode(b'{"messages": [], "options": %b}' % options, type=JSON)
    for added, strip in (({"temperature": 1}, ()), ({}, ("seed",)), ({"options": {"seed": 1}}, ())):
        with pytest.raises(InvalidValue) as caught:
            native_changes(OLLAMA_CHAT, asked, added, strip)
        assert caught.value.param == "options"
    # Ollama judges what nobody changes.
    assert bytes(native_changes(OLLAMA_CHAT, asked, {"think": True}, ())["options"]) == options


@pytest.mark.parametrize(
    ("path", "asked", "context_length", "keep_alive_s", "told"),
    [
        ("/api/chat", {"messages": ASK}, 2048, 60.0, {"options": {"num_ctx": 2048}, "keep_alive": "60.000s"}),
        ("/api/chat", {"messages": ASK, "options": None}, 2048, None, {"options": {"num_ctx": 2048}}),
        ("/api/chat", {"messages": ASK, "options": {"num_ctx": 512}}, 2048, None, {}),
        (
            "/api/generate",
            {"prompt": "Hi", "options": {"num_ctx": None, "seed": 1}},
            2048,
            None,
            {"options": {"seed": 1, "num_ctx": 2048}},
        ),
        ("/api/embed", {"input": "Hi"}, None, math.inf, {"keep_alive": -1}),
        ("/api/generate", {"prompt": "Hi", "keep_alive": "5m"}, None, 60.0, {}),
        ("/api/generate", {"prompt": "Hi", "keep_alive": 0}, None, 60.0, {}),
        ("/api/generate", {"prompt": "Hi", "keep_alive": None}, None, 0, {"keep_alive": 0}),
        ("/api/generate", {"prompt": "Hi"}, None, None, {}),
        # A command to load stays one.
        ("/api/generate", {"prompt": ""}, None, 0, {}),
        ("/api/generate", {}, None, 0, {}),
        ("/api/chat", {"messages": []}, None, 0, {}),
        ("/api/chat", {}, None, 60.0, {"keep_alive": "60.000s"}),
        ("/api/show", {"model": "m"}, 2048, 60.0, {}),
    ],
)
def test_a_native_request_gets_what_it_does_not_say_itself(
    path: str, asked: ChatFields, context_length: int | None, keep_alive_s: float | None, told: ChatFields
) -> None:
    changed = native_overrides(path, fields_of(**asked), context_length, keep_alive_s)
    assert msgspec.json.decode(msgspec.json.encode(changed)) == asked | told
