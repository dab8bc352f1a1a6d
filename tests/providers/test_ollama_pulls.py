"""Downloads and deletions at Ollama: the stand-in's real ones, and what its errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from tests.providers.ollama_bench import ScriptedOllama, provider_at
from tests.standins.ollama import OllamaStandin
from tray_valet.core.downloads import PullProgress
from tray_valet.core.errors import (
    InvalidValue,
    NotSupported,
    ProviderUnreachable,
    UnknownModel,
    UpstreamFailed,
    ValetError,
)
from tray_valet.providers.ollama import OllamaProvider
from tray_valet.providers.ollama_pulls import error_of


@pytest.fixture(scope="module")
def ollama() -> Iterator[OllamaStandin]:
    with OllamaStandin() as standin:
        yield standin


async def news(provider: OllamaProvider, model: str) -> list[PullProgress]:
    async with aclosing(provider.pull(model)) as progress:
        return [each async for each in progress]


async def test_a_download_tells_how_far_it_is_and_the_model_is_there(ollama: OllamaStandin) -> None:
    provider = provider_at(ollama.url)
    told = await news(provider, "fresh")
    assert told[0].total_bytes is None
    assert (told[-1].status, told[-1].completed_bytes) == ("success", told[-1].total_bytes)
    assert [each.completed_bytes for each in told] == sorted(each.completed_bytes for each in told)
    assert "fresh:latest" in {model.name for model in await provider.installed()}
    await provider.delete("fresh")
    assert "fresh:latest" not in {model.name for model in await provider.installed()}
    with pytest.raises(UnknownModel):
        await provider.delete("fresh")
    await provider.close()


async def test_a_download_that_is_left_ends_there_and_goes_on_later(ollama: OllamaStandin) -> None:
    provider = provider_at(ollama.url)
    await asyncio.to_thread(ollama.set, pull_s=2.0)
    async with aclosing(provider.pull("half")) as progress:
        async for each in progress:
            if each.completed_bytes:
                break
    await asyncio.to_thread(ollama.set, pull_s=0.1)
    told = await news(provider, "half")
    assert told[-1].status == "success"
    assert min(each.completed_bytes for each in told if each.completed_bytes) > 0
    await provider.close()


async def test_an_unknown_model_is_told_from_the_error_line(ollama: OllamaStandin) -> None:
    provider = provider_at(ollama.url)
    with pytest.raises(UnknownModel):
        await news(provider, "no-such")
    await provider.close()


async def test_a_server_that_is_away_says_so() -> None:
    provider = provider_at("http://127.0.0.1:9")
    with pytest.raises(ProviderUnreachable):
        await news(provider, "x")
    with pytest.raises(ProviderUnreachable):
        await provider.delete("x")
    await provider.close()


@pytest.mark.parametrize(
    ("reason", "status", "kind"),
    [
        ("pull model manifest: file does not exist", 200, UnknownModel),
        ("pull model manifest: 404: not found", 500, UnknownModel),
        ("invalid model name", 400, InvalidValue),
        ("pull model manifest: 412: this model requires a newer version of Ollama", 200, NotSupported),
        ("dial tcp: lookup registry.ollama.ai: no such host", 500, UpstreamFailed),
        ("write /models/blobs/x: no space left on device", 200, UpstreamFailed),
    ],
)
def test_which_errors_are_final(reason: str, status: int, kind: type[ValetError]) -> None:
    assert type(error_of("x", reason, status)) is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"status":"pulling manifest"}\n', UpstreamFailed),  # it ends without success
        ('{"status":"pulling manifest"}\n{"error":"unexpected EOF"}\n', UpstreamFailed),
        ("<html>", ProviderUnreachable),
        ("", UpstreamFailed),
    ],
)
async def test_a_stream_that_breaks_off_is_no_success(text: str, kind: type[ValetError]) -> None:
    client = httpx.AsyncClient(transport=ScriptedOllama({"/api/pull": (200, text)}))
    provider = provider_at("http://127.0.0.1:11434", client=client, processes=None)
    with pytest.raises(kind):
        await news(provider, "x")


async def test_the_folder_of_the_models_is_the_running_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    with OllamaStandin() as standin:  # inherits it
        monkeypatch.delenv("OLLAMA_MODELS")
        here = provider_at(standin.url)
        assert await here.models_folder() == str(tmp_path)
        await here.close()
    elsewhere = provider_at("http://192.168.1.9:11434")
    assert await elsewhere.models_folder() is None
    await elsewhere.close()
