"""The Ollama provider with answers that are not as they should be, and with none."""

from __future__ import annotations

import asyncio
import sys

import httpx
import pytest

from tests.providers.ollama_bench import (
    ScriptedOllama,
    in_thread,
    provider_at,
)
from tests.providers.provider_contract import (
    is_idle,
    observe_until,
)
from tests.standins.ollama import OllamaStandin
from tray_valet.core.errors import (
    ProviderUnreachable,
)
from tray_valet.core.models import LoadRequest
from tray_valet.providers.ollama import OllamaProvider

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the process table of /proc")


@pytest.mark.parametrize(
    "text",
    [
        '{"models":null}',
        "{}",
        '{"models":[]}',
    ],
)
async def test_an_empty_list_in_any_form_is_empty(text: str) -> None:
    client = httpx.AsyncClient(transport=ScriptedOllama({"/api/ps": (200, text), "/api/tags": (200, text)}))
    provider = provider_at("http://127.0.0.1:1", client=client)
    assert is_idle(await provider.observe())
    assert await provider.installed() == ()


@pytest.mark.parametrize("body", [b'{"models":[{"name":"\xff"}],"status":"\xff"}', b'{"x":' + b"[" * 100_000])
async def test_bytes_that_are_no_json_are_no_ollama(body: bytes) -> None:
    scripted = ScriptedOllama({"/api/ps": (200, body), "/api/tags": (200, body), "/api/pull": (200, body)})
    provider = provider_at("http://127.0.0.1:1", client=httpx.AsyncClient(transport=scripted))
    for ask in (provider.observe, provider.installed, lambda: anext(provider.pull("x"))):
        with pytest.raises(ProviderUnreachable, match="is not an Ollama"):
            await ask()


async def test_an_error_that_is_no_text_is_told_all_the_same() -> None:
    scripted = ScriptedOllama({"/api/tags": (500, b'{"error":"disk \xff"}')})
    provider = provider_at("http://127.0.0.1:1", client=httpx.AsyncClient(transport=scripted))
    with pytest.raises(ProviderUnreachable, match=r"answers /api/tags with 500: .*disk"):
        await provider.installed()


async def test_missing_fields_are_not_missed() -> None:
    ps = '{"models":[{"name":"a"},{"model":"b:1","size":null,"expires_at":"0001-01-01T00:00:00Z"}]}'
    tags = '{"models":[{"name":"a"},{"name":"e","details":{"family":"bert","families":null}},{}]}'
    client = httpx.AsyncClient(transport=ScriptedOllama({"/api/ps": (200, ps), "/api/tags": (200, tags)}))
    provider = provider_at("http://127.0.0.1:1", client=client)
    first, second = (await provider.observe()).loaded
    assert (first.name, first.size_bytes, first.context_length, first.ttl_left_s) == (
        "a:latest",
        0,
        None,
        None,
    )
    assert (second.name, second.ttl_left_s) == ("b:1", 300.0)
    assert [(m.name, m.can_chat, m.can_embed) for m in await provider.installed()] == [
        ("a:latest", True, False),
        ("e:latest", False, True),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        (200, "<html>"),
        (200, "[]"),
        (404, "404 page not found"),
        (500, '{"error":"no"}'),
        (200, '{"models":3}'),
    ],
)
async def test_what_is_no_ollama_is_unreachable_and_says_why(answer: tuple[int, str]) -> None:
    client = httpx.AsyncClient(transport=ScriptedOllama({"/api/ps": answer, "/api/tags": answer}))
    provider = provider_at("http://127.0.0.1:1", client=client)
    with pytest.raises(ProviderUnreachable, match=r"127\.0\.0\.1:1"):
        await provider.observe()
    with pytest.raises(ProviderUnreachable):
        await provider.installed()


async def test_c6_a_hung_server_is_noticed_in_bounded_time(
    hurried: OllamaProvider, standin: OllamaStandin
) -> None:
    await hurried.observe()
    await in_thread(standin.freeze)
    try:
        async with asyncio.timeout(10):
            for call in (hurried.observe(), hurried.installed(), hurried.unload("llama3")):
                with pytest.raises(ProviderUnreachable):
                    await call
            with pytest.raises(ProviderUnreachable):
                await hurried.load(LoadRequest(model="llama3"))
    finally:
        await in_thread(standin.thaw)
    assert is_idle(await observe_until(hurried, lambda seen: True))


async def test_a_server_that_comes_back_is_seen_again(provider: OllamaProvider) -> None:
    with OllamaStandin() as other:
        provider = provider_at(other.url)
        await provider.load(LoadRequest(model="llama3"))
        await in_thread(other.kill)
        with pytest.raises(ProviderUnreachable):
            await provider.observe()
        async with asyncio.timeout(10):
            while await provider.runners():  # noqa: ASYNC110  # they end a moment after their server
                await asyncio.sleep(0.02)
        await in_thread(other.start)
        assert is_idle(await provider.observe())
        await provider.load(LoadRequest(model="llama3"))
        await provider.close()
