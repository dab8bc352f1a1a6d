"""Whole answers from streams, against the real engine: they are what it would have answered whole."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.ports import quiet_port
from tray_valet.engine import tiny_model
from tray_valet.engine.locate import embedded_engine, is_embedded_installed
from tray_valet.web.translate.whole_answers import assembler_for, can_stream_whole

pytestmark = pytest.mark.skipif(not is_embedded_installed(), reason="xllamacpp is not installed")

CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)
# Each answer has its own of these.
OWN = re.compile(r"id|call_id|created|created_at|completed_at|timings")
ASK = [{"role": "user", "content": "Hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}, "b": {"type": "array"}},
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
CALL = '<tool_call> {"name": "f", "arguments": {"a": true, "b": [1, 2.50, "x"]}} </tool_call>'
# A template that the engine can tell from which marks tool calls and thoughts have.
TEMPLATE = """\
{%- if tools %}{{- '<|system|>Tools:' }}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}
{{- '<|end|>' }}{%- endif %}
{%- for message in messages %}
{{- '<|' + message.role + '|>' }}
{%- if message.reasoning_content %}{{- '<think>' + message.reasoning_content + '</think>' }}{%- endif %}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- if message.tool_calls %}{%- for call in message.tool_calls %}
{{- '<tool_call> {"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '} </tool_call>' }}
{%- endfor %}{%- endif %}{{- '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""


def running_engine(model: Path, *flags: str) -> Iterator[str]:
    """Its address, while it runs."""
    engine = embedded_engine(os.environ)
    port = quiet_port()
    argv = [*engine.argv, "-m", str(model), "--port", str(port), "-c", "4096", "--jinja", *flags]
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | engine.env
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + 45
        while not is_ready(url):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        yield url
    finally:
        process.kill()
        process.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False, timeout=30).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Iterator[str]:
    yield from running_engine(tiny_model)


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine whose model answers with a tool call."""
    yield from talented_engine(tmp_path_factory.mktemp("caller"), CALL)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine whose model thinks before it answers."""
    yield from talented_engine(tmp_path_factory.mktemp("thinker"), "<think>hm well</think> Yes I do")


def talented_engine(folder: Path, reply: str) -> Iterator[str]:
    """One whose model gives that reply, with a template that knows tools and thoughts."""
    (folder / "template.jinja").write_text(TEMPLATE)
    with pytest.MonkeyPatch.context() as patch:  # what the model says is made with it
        patch.setattr(tiny_model, "REPLY", reply)
        tiny_model.write_tiny_model(folder / "model.gguf")
    yield from running_engine(folder / "model.gguf", "--chat-template-file", str(folder / "template.jinja"))


def post(url: str, path: str, body: bytes) -> httpx.Response:
    headers = {"content-type": "application/json"}
    return httpx.post(url + path, content=body, headers=headers, trust_env=False, timeout=60)


def without_own(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_own(item) for name, item in value.items() if not OWN.fullmatch(name)}
    return [without_own(item) for item in value] if isinstance(value, list) else value


def names_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {name for item in value.values() for name in names_in(item)}
    return {name for item in value for name in names_in(item)} if isinstance(value, list) else set()


def both(url: str, path: str, **asked: Any) -> tuple[Any, Any]:
    """The engine's own whole answer, and the one put together from its stream, fed in small pieces."""
    body = msgspec.json.encode({"temperature": 0, "seed": 7, "cache_prompt": False, **asked})
    post(url, path, body)  # Anthropic knows no `cache_prompt`, and tells what was cached: now all is
    whole = post(url, path, body)
    assert whole.status_code == 200, whole.text
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    assembler = assembler_for(path)
    assert assembler is not None
    streamed = post(url, path, msgspec.json.encode(assembler.request_fields(fields)))
    assert streamed.headers["content-type"].startswith("text/event-stream")
    for start in range(0, len(streamed.content), 11):
        assembler.feed(streamed.content[start : start + 11])
    return whole.json(), msgspec.json.decode(assembler.finish())


PREFILL = {"type": "output_text", "text": "Tiny demo"}
ANTHROPIC_TOOL = {"name": "f", "input_schema": SCHEMA}
GRAMMAR = {"grammar": 'root ::= "é" "ü"'}  # one byte a token: half letters on the way
PLAIN_CASES: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": ASK}),
    (CHAT, {"messages": ASK, "max_tokens": 3}),
    (CHAT, {"messages": ASK, "max_tokens": 1}),
    (CHAT, {"messages": ASK, "n": 2}),
    (CHAT, {"messages": ASK, "stop": ["Tiny"]}),
    (CHAT, {"messages": ASK, "stop": "model"}),
    (CHAT, {"messages": ASK, "timings_per_token": True, "return_progress": True}),
    (CHAT, {"messages": ASK, "stream_options": {"include_usage": False}}),
    (CHAT, {"messages": ASK, "response_format": {"type": "json_object"}, "max_tokens": 20}),
    (CHAT, {"messages": ASK, **GRAMMAR}),
    (COMPLETIONS, {"prompt": "Tiny"}),
    (COMPLETIONS, {"prompt": "Tiny", "max_tokens": 2}),
    (COMPLETIONS, {"prompt": "Tiny", "n": 2}),
    (COMPLETIONS, {"prompt": ["Hi", "Tiny demo", [1, 2]]}),
    (COMPLETIONS, {"prompt": "Tiny", "stop": ["model"]}),
    (COMPLETIONS, {"prompt": "Tiny", **GRAMMAR}),
    (RESPONSES, {"input": "Hi"}),
    (RESPONSES, {"input": "Hi", "max_output_tokens": 3}),
    (RESPONSES, {"input": [*ASK, {"type": "message", "role": "assistant", "content": [PREFILL]}]}),
    (RESPONSES, {"input": "Hi", **GRAMMAR}),
    (MESSAGES, {"messages": ASK, "max_tokens": 40}),
    (MESSAGES, {"messages": ASK, "max_tokens": 3}),
    (MESSAGES, {"messages": ASK, "max_tokens": 9, "stop_sequences": ["model"]}),
    (MESSAGES, {"messages": ASK, "max_tokens": 9, "stop_sequences": ["Tiny"]}),
]
RESPONSES_TOOL = {"type": "function", "name": "f", "parameters": SCHEMA}
TOOL_CASES: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"messages": ASK, "tools": [TOOL]}, "tool_calls"),
    (CHAT, {"messages": ASK, "tools": [TOOL], "n": 2}, "tool_calls"),
    (CHAT, {"messages": ASK, "tools": [TOOL], "max_tokens": 7}, "tool_calls"),
    (RESPONSES, {"input": "Hi", "tools": [RESPONSES_TOOL]}, "arguments"),
    (MESSAGES, {"messages": ASK, "max_tokens": 90, "tools": [ANTHROPIC_TOOL]}, "input"),
    (MESSAGES, {"messages": ASK, "max_tokens": 7, "tools": [ANTHROPIC_TOOL]}, "input"),
]
THOUGHT_CASES: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"messages": ASK}, "reasoning_content"),
    (CHAT, {"messages": ASK, "max_tokens": 2}, "reasoning_content"),
    (RESPONSES, {"input": "Hi"}, "summary"),
    (MESSAGES, {"messages": ASK, "max_tokens": 90}, "signature"),
    (MESSAGES, {"messages": ASK, "max_tokens": 2}, "signature"),
]


@pytest.mark.parametrize(("path", "asked"), PLAIN_CASES, ids=str)
def test_the_assembled_answer_is_the_engines_own(plain: str, path: str, asked: dict[str, Any]) -> None:
    assert can_stream_whole(
        path, msgspec.json.decode(msgspec.json.encode(asked), type=dict[str, msgspec.Raw])
    )
    whole, assembled = both(plain, path, **asked)
    assert without_own(assembled) == without_own(whole)
    assert names_in(assembled) == names_in(whole)


@pytest.mark.parametrize(("path", "asked", "mark"), TOOL_CASES, ids=str)
def test_tool_calls_are_the_engines_own(caller: str, path: str, asked: dict[str, Any], mark: str) -> None:
    whole, assembled = both(caller, path, **asked)
    assert mark in names_in(whole)  # the case is what it says
    assert without_own(assembled) == without_own(whole)
    assert names_in(assembled) == names_in(whole)


@pytest.mark.parametrize(("path", "asked", "mark"), THOUGHT_CASES, ids=str)
def test_thoughts_are_the_engines_own(thinker: str, path: str, asked: dict[str, Any], mark: str) -> None:
    whole, assembled = both(thinker, path, **asked)
    assert mark in names_in(whole)
    assert without_own(assembled) == without_own(whole)
    assert names_in(assembled) == names_in(whole)


@pytest.mark.parametrize(
    "asked",
    [
        {"logprobs": True, "top_logprobs": 2},
        {"verbose": True},
        {"messages": [*ASK, {"role": "assistant", "content": "Tiny demo"}]},
    ],
    ids=str,
)
def test_what_streaming_would_change_is_not_streamed(plain: str, asked: dict[str, Any]) -> None:
    """The engine's own streams differ from its whole answers there: checked, so that we see it change."""
    body: dict[str, Any] = {"messages": ASK, **asked}
    assert not can_stream_whole(
        CHAT, msgspec.json.decode(msgspec.json.encode(body), type=dict[str, msgspec.Raw])
    )
    whole, assembled = both(plain, CHAT, **body)
    assert without_own(assembled) != without_own(whole)


def test_log_probabilities_of_completions_add_up(plain: str) -> None:
    whole, assembled = both(plain, COMPLETIONS, prompt="Tiny", logprobs=2)
    assert len(whole["choices"][0]["logprobs"]["content"]) > 10
    assert without_own(assembled) == without_own(whole)
