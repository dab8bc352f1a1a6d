"""Loading at Ollama: contexts, times to live, minutes of patience, failures."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import Any

import httpx
import pytest

from tests.providers.ollama_bench import (
    HF_NAME,
    ScriptedOllama,
    has_no_runner,
    has_runner,
    in_thread,
    provider_at,
    until,
    was_called,
)
from tests.providers.provider_contract import (
    chat,
    is_idle,
    loaded_names,
    observe_until,
    the_one,
)
from tests.standins.ollama import OllamaStandin
from tray_valet.core.errors import (
    LoadFailed,
    ProviderUnreachable,
)
from tray_valet.core.models import LoadRequest
from tray_valet.providers.ollama import OllamaProvider

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the process table of /proc")


async def test_v18_names_with_slashes_are_loaded_and_unloaded(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    assert (await provider.load(LoadRequest(model=HF_NAME))).name == HF_NAME
    assert await chat(provider, HF_NAME)
    await provider.unload(HF_NAME)
    await observe_until(provider, is_idle)


async def test_v7_the_context_that_was_captured_is_the_one_restored(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.load, "llama3", options={"num_ctx": 24_576})
    captured = the_one(await provider.observe(), "llama3:latest")
    assert captured.context_length == 24_576
    await provider.unload("llama3")
    await observe_until(provider, is_idle)
    restored = await provider.load(
        LoadRequest(model=captured.name, context_length=captured.context_length, ttl_s=captured.ttl_left_s)
    )
    assert restored.context_length == 24_576
    assert (await in_thread(standin.calls, "/api/generate"))[-1]["body"]["options"] == {"num_ctx": 24_576}


async def test_v20_a_restored_model_keeps_the_time_it_had_left(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await provider.load(LoadRequest(model="llama3", ttl_s=83.5))
    ttl_left_s = the_one(await provider.observe(), "llama3:latest").ttl_left_s
    assert ttl_left_s is not None
    assert 20 < ttl_left_s <= 83.5
    [load] = await in_thread(standin.calls, "/api/generate")
    assert load["body"]["keep_alive"] == "83.500s"


async def test_v20_without_a_wish_ollamas_own_time_applies(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await provider.load(LoadRequest(model="llama3"))
    [load] = await in_thread(standin.calls, "/api/generate")
    assert load["body"] == {"model": "llama3:latest", "stream": False}
    ttl_left_s = the_one(await provider.observe(), "llama3:latest").ttl_left_s
    assert ttl_left_s is not None
    assert 200 < ttl_left_s <= 300


async def test_v20_a_model_kept_for_ever_is_restored_for_ever(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.load, "llama3", keep_alive=-1)
    assert the_one(await provider.observe(), "llama3:latest").ttl_left_s is None
    await provider.unload("llama3")
    await observe_until(provider, is_idle)
    await provider.load(LoadRequest(model="llama3", ttl_s=math.inf))
    assert the_one(await provider.observe(), "llama3:latest").ttl_left_s is None


async def test_a_time_of_nothing_loads_and_does_not_unload(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    loaded = await provider.load(LoadRequest(model="llama3", ttl_s=0.0))
    assert loaded.name == "llama3:latest"


async def test_v21_a_load_outlasts_every_other_limit_and_is_shown_meanwhile(
    hurried: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.set, load_s=2.0)  # five times what a call may take
    load = asyncio.create_task(hurried.load(LoadRequest(model="llama3")), name="slow-load")
    observation = await observe_until(hurried, lambda seen: seen.loading == ("llama3:latest",))
    assert observation.loaded == ()
    assert (await load).name == "llama3:latest"
    assert len(await in_thread(standin.calls, "/api/generate")) == 1


async def test_v21_a_server_that_dies_during_a_load_is_noticed(provider: OllamaProvider) -> None:
    with OllamaStandin("--load-s", "60") as other:
        provider = provider_at(other.url)
        load = asyncio.create_task(provider.load(LoadRequest(model="llama3")), name="load")
        await observe_until(provider, lambda seen: bool(seen.loading))
        await in_thread(other.kill)
        with pytest.raises(ProviderUnreachable):
            await load
        await provider.close()


async def test_v21_a_server_that_hangs_during_a_load_is_noticed(
    hurried: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.set, load_s=60.0)
    load = asyncio.create_task(hurried.load(LoadRequest(model="llama3")), name="load")
    await until(lambda: has_runner(hurried))
    await in_thread(standin.freeze)
    try:
        with pytest.raises(ProviderUnreachable):
            await load
    finally:
        await in_thread(standin.thaw)
    await observe_until(hurried, is_idle)


async def test_a_model_on_its_way_already_shows_its_process(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    """Ollama lists a model only when it is ready; its memory is taken before."""
    await in_thread(standin.set, load_s=60.0)
    client = httpx.AsyncClient(trust_env=False, timeout=60)
    body = {"model": "llama3", "stream": False}
    foreign = asyncio.create_task(client.post(f"{standin.url}/api/generate", json=body), name="foreign")
    await until(lambda: has_runner(provider))
    assert is_idle(await provider.observe())
    foreign.cancel()
    await until(lambda: has_no_runner(provider))
    await client.aclose()


async def test_loading_without_a_context_leaves_a_loaded_model_as_it_is(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.load, "llama3", options={"num_ctx": 20_000})
    before = await provider.runners()
    loaded = await provider.load(LoadRequest(model="llama3", ttl_s=60))
    assert loaded.context_length == 20_000
    assert await provider.runners() == before


async def test_a_context_beyond_the_models_own_is_reported_as_it_became(
    provider: OllamaProvider, standin: OllamaStandin, caplog: pytest.LogCaptureFixture
) -> None:
    await in_thread(standin.set, add_models=[{"name": "short:latest", "context_length": 2048}])
    loaded = await provider.load(LoadRequest(model="short", context_length=8192))
    assert loaded.context_length == 2048
    assert "2048" in caplog.text


async def test_an_embedding_model_loads_and_goes(provider: OllamaProvider, standin: OllamaStandin) -> None:
    loaded = await provider.load(LoadRequest(model="nomic-embed-text", context_length=1024, ttl_s=60))
    assert (loaded.name, loaded.context_length) == ("nomic-embed-text:latest", 1024)
    [embed] = await in_thread(standin.calls, "/api/embed")
    assert embed["body"] == {
        "model": "nomic-embed-text:latest",
        "stream": False,
        "keep_alive": "60.000s",
        "options": {"num_ctx": 1024},
    }
    await provider.unload("nomic-embed-text")
    await observe_until(provider, is_idle)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"load_error": "llama-server process has terminated: exit status 1: no such tensor"},
            "no such tensor",
        ),
        ({"free_bytes": 2**20}, "more system memory"),
        ({"fail": {"/api/generate": 503}}, "told to fail"),
    ],
)
async def test_a_load_that_fails_says_what_ollama_said(
    provider: OllamaProvider, standin: OllamaStandin, settings: dict[str, Any], words: str
) -> None:
    await in_thread(standin.set, **settings)
    with pytest.raises(LoadFailed, match=words) as error:
        await provider.load(LoadRequest(model="llama3"))
    assert words in error.value.log_tail[-1]
    assert is_idle(await provider.observe())


async def test_a_model_that_is_gone_again_at_once_is_a_failed_load(standin: OllamaStandin) -> None:
    answers = {
        "/api/ps": (200, '{"models":[]}'),
        "/api/generate": (200, '{"done":true,"done_reason":"load"}'),
    }
    client = httpx.AsyncClient(transport=ScriptedOllama(answers))
    provider = provider_at("http://127.0.0.1:1", client=client)
    with pytest.raises(LoadFailed, match="let it go"):
        await provider.load(LoadRequest(model="llama3"))


async def test_different_wishes_for_one_model_come_one_after_the_other(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.set, load_s=0.3)
    small, large = await asyncio.gather(
        provider.load(LoadRequest(model="llama3", context_length=1024)),
        provider.load(LoadRequest(model="llama3", context_length=2048)),
    )
    assert (small.context_length, large.context_length) == (1024, 2048)
    assert len(await provider.runners()) == 1


async def test_a_cancelled_load_of_a_loaded_model_leaves_it_there(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await provider.load(LoadRequest(model="llama3", context_length=1024))
    await in_thread(standin.set, delay_s={"/api/generate": 30.0})
    load = asyncio.create_task(provider.load(LoadRequest(model="llama3", context_length=1024)), name="again")
    await until(lambda: was_called(standin, "/api/generate", 2))
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert loaded_names(await provider.observe()) == {"llama3:latest"}


async def test_closing_gives_up_loads(provider: OllamaProvider, standin: OllamaStandin) -> None:
    await in_thread(standin.set, load_s=60.0)
    load = asyncio.create_task(provider.load(LoadRequest(model="llama3")), name="load")
    await until(lambda: has_runner(provider))
    async with asyncio.timeout(3):
        await provider.close()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert await provider.runners() == ()
