"""The clients that people have, unmodified, against the router over the real engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.whole.router_homes import (
    TOOL_ARGUMENTS,
    TOOL_NAME,
    TOOL_SCHEMA,
    local,
    metric,
    router_url,
    tool_caller,
)
from tests.whole.valet_process import ValetProcess, engine_pids, until
from tray_valet.engine.tiny_model import REPLY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

NAMES = {"assistant", "one", "endless", "embedder", "caller"}
ASK: Any = [{"role": "user", "content": "Who are you?"}]
TOOL: Any = {"type": "function", "function": {"name": TOOL_NAME, "parameters": TOOL_SCHEMA}}


@pytest.fixture(scope="module")
def valet(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ValetProcess]:
    home = tmp_path_factory.mktemp("clients") / "home"
    flags = {
        "one": [],
        "endless": ["--ignore-eos", "--context-shift"],
        "embedder": ["--embedding", "--pooling", "mean"],
    }
    provider = local(home, tiny_model, flags)
    provider["models"]["caller"] = tool_caller(home)
    settings = {
        "games": {"enabled": False},  # other tests play games on this machine
        "models": {"max_concurrent": 5},
        "eviction": {"drain_seconds": 0.2},
        "providers": {"local": provider},
        "routes": {"assistant": {"candidates": [{"provider": "local", "model": "one"}]}},
    }
    with ValetProcess(home, settings) as process:
        yield process
    assert engine_pids(home) == []


@pytest.fixture
def client(valet: ValetProcess) -> Iterator[openai.OpenAI]:
    url = f"{router_url(valet)}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=30) as one:
        yield one


@pytest.fixture
def claude(valet: ValetProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=router_url(valet), api_key="none", max_retries=0, timeout=30) as one:
        yield one


def pause(valet: ValetProcess) -> str:
    """A hold of a renderer; returns what ends it."""
    return f"/holds/{valet.post('/holds', {'owner': 'renderer', 'reason': 'a frame'}, status=201)['id']}"


def resume(valet: ValetProcess, hold: str) -> None:
    assert valet.control.delete(hold).status_code == 200
    valet.wait_state("running")


# -- openai ----------------------------------------------------------------------------------------------


def test_openai_chats_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="assistant", messages=ASK)
    assert whole.choices[0].message.content == REPLY
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0
    stream = client.chat.completions.create(
        model="assistant", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert len(pieces) > 5
    assert "".join(pieces) == REPLY
    assert chunks[-1].usage == whole.usage or chunks[-1].usage is not None


async def test_the_async_client_does_both_at_once(valet: ValetProcess) -> None:
    url = f"{router_url(valet)}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=30) as client:
        stream = await client.chat.completions.create(model="one", messages=ASK, stream=True)
        first = await anext(aiter(stream))
        rest = [chunk async for chunk in stream]
        pieces = [choice.delta.content or "" for chunk in (first, *rest) for choice in chunk.choices]
        assert "".join(pieces) == REPLY
        assert "assistant" in [model.id async for model in client.models.list()]
        response = await client.responses.create(model="one", input="Who are you?")
        assert response.output_text == REPLY


def test_openai_calls_tools_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="caller", messages=ASK, tools=[TOOL])
    assert whole.choices[0].finish_reason == "tool_calls"
    [call] = whole.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == TOOL_NAME
    assert json.loads(call.function.arguments) == TOOL_ARGUMENTS

    names, arguments = "", ""
    reasons = []
    for chunk in client.chat.completions.create(model="caller", messages=ASK, tools=[TOOL], stream=True):
        for choice in chunk.choices:
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for part in choice.delta.tool_calls or []:
                assert part.function is not None
                names += part.function.name or ""
                arguments += part.function.arguments or ""
    assert (names, json.loads(arguments)) == (TOOL_NAME, TOOL_ARGUMENTS)
    assert reasons == ["tool_calls"]

    answered = client.chat.completions.create(
        model="caller",
        messages=[
            *ASK,
            whole.choices[0].message.to_dict(),  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": call.id, "content": "Sunny"},
        ],
        tools=[TOOL],
    )
    assert answered.choices, "a conversation with a tool's result is taken"


def test_openai_completes_texts(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="one", prompt="Tiny", max_tokens=4, temperature=0)
    streamed = list(
        client.completions.create(model="one", prompt="Tiny", max_tokens=4, temperature=0, stream=True)
    )
    assert whole.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == whole.choices[0].text


def test_openai_responds_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="one", input="Who are you?")
    assert whole.output_text == REPLY
    assert whole.status == "completed"
    # `responses.stream` wants a content_index in each delta, which this engine leaves out.
    events = list(client.responses.create(model="one", input="Who are you?", stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == REPLY
    [done] = [event.response for event in events if event.type == "response.completed"]
    assert done.output_text == REPLY


def test_openai_embeds_one_text_and_several(client: openai.OpenAI) -> None:
    [one] = client.embeddings.create(model="embedder", input="Tiny").data
    both = client.embeddings.create(model="embedder", input=["Tiny", "demo"]).data
    assert len(one.embedding) == 128
    assert [e.index for e in both] == [0, 1]
    assert both[0].embedding == pytest.approx(one.embedding, abs=1e-3)
    plain = client.embeddings.create(model="embedder", input="Tiny", encoding_format="float").data[0]
    assert plain.embedding == pytest.approx(one.embedding, abs=1e-3)


def test_openai_lists_models_and_retrieves_one(client: openai.OpenAI) -> None:
    listed = {model.id for model in client.models.list()}
    assert listed == NAMES
    one = client.models.retrieve("assistant")
    assert (one.id, one.object) == ("assistant", "model")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("gpt-9")
    assert unknown.value.code == "model_not_found"


def test_openais_errors_are_of_the_class_that_they_should_be(
    valet: ValetProcess, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-9", messages=ASK)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="", messages=ASK)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="one", messages=ASK, extra_body={"messages": 5})
    with pytest.raises(openai.InternalServerError) as embeds_not:
        client.embeddings.create(model="one", input="Hi")
    assert embeds_not.value.status_code == 501
    hold = pause(valet)
    for is_stream in (False, True):
        with pytest.raises(openai.APIStatusError) as paused:
            client.chat.completions.create(model="one", messages=ASK, stream=is_stream)
        assert (paused.value.status_code, paused.value.code) == (503, "paused")
        assert paused.value.type == "unavailable_error"
        assert "renderer" in paused.value.message
        assert int(paused.value.response.headers["retry-after"]) >= 1
    resume(valet, hold)


def test_openais_own_retries_carry_a_request_over_a_short_pause(valet: ValetProcess) -> None:
    url = f"{router_url(valet)}/v1"
    before = metric(valet, "router_requests_total", status="refused")
    hold = pause(valet)
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=10, timeout=30) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(client.chat.completions.create, model="one", messages=ASK)
        until(lambda: metric(valet, "router_requests_total", status="refused") > before, "it was refused")
        resume(valet, hold)
        assert asked.result(60).choices[0].message.content == REPLY


# -- anthropic -------------------------------------------------------------------------------------------


def test_anthropic_speaks_whole_and_streamed_and_counts(claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(model="assistant", messages=ASK, max_tokens=90)
    assert [part.text for part in whole.content if part.type == "text"] == [REPLY]
    assert whole.stop_reason == "end_turn"
    with claude.messages.stream(model="assistant", messages=ASK, max_tokens=90) as stream:
        assert "".join(stream.text_stream) == REPLY
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert claude.messages.count_tokens(model="assistant", messages=ASK).input_tokens > 3


def test_anthropic_calls_tools(claude: anthropic.Anthropic) -> None:
    tool: Any = {"name": TOOL_NAME, "input_schema": TOOL_SCHEMA}
    whole = claude.messages.create(model="caller", messages=ASK, max_tokens=90, tools=[tool])
    [use] = [part for part in whole.content if part.type == "tool_use"]
    assert (use.name, use.input) == (TOOL_NAME, TOOL_ARGUMENTS)
    with claude.messages.stream(model="caller", messages=ASK, max_tokens=90, tools=[tool]) as stream:
        final = stream.get_final_message()
    [use] = [part for part in final.content if part.type == "tool_use"]
    assert (use.name, use.input) == (TOOL_NAME, TOOL_ARGUMENTS)


def test_anthropics_errors_are_of_the_class_that_they_should_be(
    valet: ValetProcess, claude: anthropic.Anthropic
) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        claude.messages.create(model="claude-9", messages=ASK, max_tokens=4)
    body: Any = unknown.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    hold = pause(valet)
    with pytest.raises(anthropic.APIStatusError) as paused:
        claude.messages.create(model="one", messages=ASK, max_tokens=4)
    body = paused.value.body
    assert (paused.value.status_code, body["type"], body["error"]["code"]) == (503, "error", "paused")
    assert "renderer" in body["error"]["message"]
    with pytest.raises(anthropic.APIStatusError):
        claude.messages.count_tokens(model="one", messages=ASK)
    resume(valet, hold)


def test_a_stream_that_a_pause_ends_is_an_error_for_anthropics_client(
    valet: ValetProcess, claude: anthropic.Anthropic
) -> None:
    stream = claude.messages.create(model="endless", messages=ASK, max_tokens=1_000_000, stream=True)
    next(iter(stream))
    hold = pause(valet)
    with pytest.raises(anthropic.APIStatusError) as ended:
        for _ in stream:
            pass
    assert "renderer" in str(ended.value)
    resume(valet, hold)


# -- ollama, over a provider that is none ----------------------------------------------------------------


def test_ollama_lists_what_is_there_though_no_ollama_is(valet: ValetProcess) -> None:
    client = ollama.Client(host=router_url(valet))
    assert {model.model for model in client.list().models} == NAMES
    assert valet.chat("one").status_code == 200
    [one] = [model for model in client.ps().models if model.model == "one"]
    assert one.context_length == 4096
    assert one.expires_at is not None


@pytest.mark.parametrize("ask", ["chat", "generate", "embed", "show"])
def test_ollamas_own_requests_are_a_clear_501_there(valet: ValetProcess, ask: str) -> None:
    client = ollama.Client(host=router_url(valet))
    calls: dict[str, Callable[[], object]] = {
        "chat": lambda: client.chat("one", messages=ASK),
        "generate": lambda: client.generate("one", "Hi"),
        "embed": lambda: client.embed("one", "Hi"),
        "show": lambda: client.show("one"),
    }
    with pytest.raises(ollama.ResponseError) as refused:
        calls[ask]()
    assert refused.value.status_code == 501
    assert "/v1/chat/completions" in refused.value.error
