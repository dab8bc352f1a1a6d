"""The Ollama provider against the stand-in: the port's contract, what it is, what it sees."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.providers.ollama_bench import (
    HF_NAME,
    ClockAhead,
    in_thread,
    provider_at,
    start_generation,
)
from tests.providers.provider_contract import (
    ProviderContract,
    ReachabilityContract,
    is_idle,
    loaded_names,
    observe_until,
    the_one,
)
from tests.standins.ollama import OllamaStandin
from tray_valet.core.errors import (
    InvalidValue,
)
from tray_valet.core.models import LoadRequest, ProviderKind
from tray_valet.core.ports import Provider
from tray_valet.providers.ollama import OllamaProvider

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the process table of /proc")

SLOW = {"name": "slow:latest", "load_s": 3.0}


class TestContract(ProviderContract, ReachabilityContract):
    @pytest.fixture
    def standin(self, running_standin: OllamaStandin) -> OllamaStandin:
        running_standin.reset()
        running_standin.set(add_models=[SLOW])
        return running_standin

    @pytest.fixture
    def model_names(self) -> tuple[str, str]:
        return "llama3", HF_NAME

    @pytest.fixture
    def slow_model(self) -> str:
        return "slow"

    @pytest.fixture
    async def unreachable_provider(self) -> AsyncIterator[Provider]:
        provider = provider_at("http://127.0.0.1:1")
        yield provider
        await provider.close()

    async def test_another_model_loads_while_a_slow_one_is_on_its_way(
        self, provider: Provider, slow_model: str, model_names: tuple[str, str]
    ) -> None:
        """Ollama loads one model after the other; both are on their way, and both arrive."""
        names = {provider.canonical(slow_model), provider.canonical(model_names[0])}
        loads = [asyncio.create_task(provider.load(LoadRequest(model=name))) for name in sorted(names)]
        await observe_until(provider, lambda seen: bool(seen.loading))
        await asyncio.gather(*loads)
        assert loaded_names(await provider.observe()) == names


# -- what it is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "override", "is_local"),
    [
        ("http://127.0.0.1:11434", None, True),
        ("http://localhost:11434/", None, True),
        ("http://[::1]:11434", None, True),
        ("http://0.0.0.0:11434", None, True),
        ("http://192.168.1.20:11434", None, False),
        ("http://192.168.1.20:11434", True, True),
        ("http://127.0.0.1:11434", False, False),
    ],
)
async def test_it_is_local_by_its_address_unless_told(
    url: str, override: bool | None, is_local: bool
) -> None:
    provider = provider_at(url, is_local=override)
    assert provider.is_local is is_local
    assert provider.endpoint == url.rstrip("/")
    assert provider.kind is ProviderKind.OLLAMA
    await provider.close()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidValue) as error:
        provider_at("ftp://somewhere")
    assert error.value.param == "providers.ollama.url"


async def test_a_client_that_was_handed_in_stays_open(standin: OllamaStandin) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        provider = provider_at(standin.url, client=client)
        await provider.observe()
        await provider.close()
        assert not client.is_closed


async def test_proxies_of_the_environment_are_not_used_for_this_machine(
    standin: OllamaStandin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    provider = provider_at(standin.url)
    assert is_idle(await provider.observe())
    await provider.close()


async def test_headers_go_with_every_request_and_to_the_router(standin: OllamaStandin) -> None:
    headers = {"Authorization": "Bearer x"}
    provider = provider_at(standin.url, headers=headers)
    await provider.load(LoadRequest(model="llama3"))
    assert provider.upstream("llama3").headers == headers
    await provider.close()


async def test_a_name_in_another_case_is_the_same_model(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    loaded = await provider.load(LoadRequest(model="LLaMA3"))
    assert loaded.name == "llama3:latest"
    await provider.installed()
    assert provider.canonical("LLaMA3") == "llama3:latest"
    assert provider.canonical(HF_NAME.lower()) == HF_NAME


async def test_upstream_is_the_address_and_the_name_there(provider: OllamaProvider) -> None:
    await provider.installed()
    upstream = provider.upstream("llama3")
    assert (upstream.base_url, upstream.model) == (provider.endpoint, "llama3:latest")


# -- looking ---------------------------------------------------------------------------------------------


async def test_v6_every_loaded_model_is_seen(provider: OllamaProvider, standin: OllamaStandin) -> None:
    for model in ("llama3", "qwen3:8b", HF_NAME):
        await in_thread(standin.load, model)
    assert loaded_names(await provider.observe()) == {"llama3:latest", "qwen3:8b", HF_NAME}
    assert len(await provider.runners()) == 3


async def test_sizes_digest_and_version_are_told(provider: OllamaProvider, standin: OllamaStandin) -> None:
    await in_thread(standin.set, add_models=[{"name": "g:1", "memory_bytes": 16 * 2**20, "vram_share": 0.75}])
    await provider.load(LoadRequest(model="g:1"))
    observation = await provider.observe()
    model = the_one(observation, "g:1")
    assert (model.size_bytes, model.vram_bytes) == (16 * 2**20, 12 * 2**20)
    assert len(model.digest) == 64
    assert model.pid is None
    assert observation.version == "0.33.0"


async def test_the_version_is_not_asked_at_every_look(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    for _ in range(5):
        assert (await provider.observe()).version == "0.33.0"
    assert len(await in_thread(standin.calls, "/api/version")) == 1


async def test_a_server_without_a_version_is_still_seen(
    hurried: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.set, hang=["/api/version"])
    observation = await hurried.observe()
    assert observation.version is None


@pytest.mark.parametrize("zone_minutes", [-420, 0, 330])
async def test_the_time_left_is_told_in_any_time_zone(
    provider: OllamaProvider, standin: OllamaStandin, zone_minutes: int
) -> None:
    await in_thread(standin.set, offset_minutes=zone_minutes)
    await in_thread(standin.load, "llama3", keep_alive="10m")
    ttl_left_s = the_one(await provider.observe(), "llama3:latest").ttl_left_s
    assert ttl_left_s is not None
    assert 500 < ttl_left_s <= 600


async def test_the_time_left_is_told_by_the_clock_handed_in(standin: OllamaStandin) -> None:
    await in_thread(standin.load, "llama3", keep_alive="10m")
    provider = provider_at(standin.url, clock=ClockAhead(540))
    ttl_left_s = the_one(await provider.observe(), "llama3:latest").ttl_left_s
    assert ttl_left_s is not None
    assert 30 < ttl_left_s <= 60
    await provider.close()


async def test_a_model_in_use_past_its_time_has_none_left(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.set, answer_tokens=100_000)
    await in_thread(standin.load, "llama3", keep_alive="1s")
    generation = await start_generation(standin, "llama3")
    await observe_until(provider, lambda seen: the_one(seen, "llama3:latest").ttl_left_s == 0.0)
    generation.cancel()


async def test_a_cloud_model_is_installed_but_never_loaded_here(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    installed = {model.name: model for model in await provider.installed()}
    assert installed["gpt-oss:120b-cloud"].needs_gpu is False
    assert installed["llama3:latest"].needs_gpu is True
    loaded = await provider.load(LoadRequest(model="gpt-oss:120b-cloud"))
    assert (loaded.needs_gpu, loaded.size_bytes) == (False, 0)
    assert is_idle(await provider.observe())
    await provider.unload("gpt-oss:120b-cloud")
    assert provider.upstream("gpt-oss:120b-cloud").model == "gpt-oss:120b-cloud"
    assert await in_thread(standin.calls, "/api/generate") == []


async def test_a_cloud_model_is_known_by_its_remote_model_too(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.set, add_models=[{"name": "mine:latest", "remote_model": "gpt-oss:120b"}])
    installed = {model.name: model for model in await provider.installed()}
    assert installed["mine:latest"].needs_gpu is False
    assert installed["mine:latest"].details["remote_model"] == "gpt-oss:120b"
    assert (await provider.load(LoadRequest(model="mine"))).needs_gpu is False


@pytest.mark.parametrize("is_old", [False, True])
async def test_capabilities_and_context_are_told_by_new_and_old_servers(
    provider: OllamaProvider, standin: OllamaStandin, is_old: bool
) -> None:
    await in_thread(standin.set, is_old=is_old)
    installed = {model.name: model for model in await provider.installed()}
    chats, embeds = installed["llama3:latest"], installed["nomic-embed-text:latest"]
    assert (chats.can_chat, chats.can_embed, chats.context_length) == (True, False, 131_072)
    assert (embeds.can_chat, embeds.can_embed, embeds.context_length) == (False, True, 2048)
    assert chats.details["quantization_level"] == "Q4_K_M"
    assert chats.modified_at


async def test_details_are_asked_for_once_and_only_where_the_list_lacks_them(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await provider.installed()
    assert await in_thread(standin.calls, "/api/show") == []
    await in_thread(standin.set, is_old=True)
    await provider.installed()
    await provider.installed()
    assert len(await in_thread(standin.calls, "/api/show")) == 5


async def test_a_model_without_details_does_not_hide_the_others(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.set, is_old=True, fail={"/api/show": 500})
    installed = {model.name: model for model in await provider.installed()}
    assert len(installed) == 6
    assert installed["nomic-embed-text:latest"].can_embed
