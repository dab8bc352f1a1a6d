"""The Ollama provider against the stand-in: a real server process with real runner processes."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.providers.provider_contract import (
    ProviderContract,
    ReachabilityContract,
    chat,
    is_idle,
    loaded_names,
    observe_until,
    the_one,
)
from tests.standins.ollama import OllamaStandin
from tray_valet.core.errors import (
    CannotKill,
    InvalidValue,
    LoadFailed,
    NotSupported,
    ProviderUnreachable,
    UnknownModel,
    UpstreamFailed,
)
from tray_valet.core.models import LoadRequest, ProviderKind
from tray_valet.core.ports import ProcessTable, Provider
from tray_valet.providers.ollama import OllamaProvider
from tray_valet.providers.ollama_api import OllamaLimits
from tray_valet.sensing.linux_processes import LinuxProcesses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the process table of /proc")

HF_NAME = "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M"
SLOW = {"name": "slow:latest", "load_s": 1.2}
BIG = {"name": "big:latest", "memory_bytes": 200 * 2**20}
QUICK_LIMITS = OllamaLimits(connect_s=0.5, call_s=0.4, heartbeat_s=0.1, heartbeat_misses=2)


class SystemClock:
    """The machine's clock; `offset_s` moves the wall."""

    def __init__(self, offset_s: float = 0.0) -> None:
        self.offset_s = offset_s

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time() + self.offset_s


@pytest.fixture(scope="module")
def running_standin() -> Iterator[OllamaStandin]:
    with OllamaStandin() as standin:
        yield standin


@pytest.fixture
def standin(running_standin: OllamaStandin) -> OllamaStandin:
    running_standin.reset()
    return running_standin


@pytest.fixture
def process_table() -> ProcessTable:
    return LinuxProcesses()


def provider_at(url: str, **changes: Any) -> OllamaProvider:
    return OllamaProvider("ollama", url, **{"clock": SystemClock(), "processes": LinuxProcesses()} | changes)


@pytest.fixture
async def provider(standin: OllamaStandin) -> AsyncIterator[OllamaProvider]:
    provider = provider_at(standin.url)
    yield provider
    await provider.close()


@pytest.fixture
async def hurried(standin: OllamaStandin) -> AsyncIterator[OllamaProvider]:
    """One that waits for tenths of a second where the real one waits for seconds."""
    provider = provider_at(standin.url, limits=QUICK_LIMITS)
    yield provider
    await provider.close()


async def in_thread(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(call, *args, **kwargs)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so; the test's own time limit ends the wait."""
    while not await holds():
        await asyncio.sleep(0.02)


async def start_generation(standin: OllamaStandin, model: str, **body: Any) -> asyncio.Task[httpx.Response]:
    """Have another client generate, and return when tokens are being made."""

    async def generate() -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            fields = {"model": model, "prompt": "Hi", "stream": False, **body}
            return await client.post(f"{standin.url}/api/generate", json=fields)

    task = asyncio.create_task(generate(), name="other-client")
    await until(lambda: is_generating(standin))
    return task


async def is_generating(standin: OllamaStandin) -> bool:
    return bool((await in_thread(standin.state))["generating"])


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
    async with httpx.AsyncClient(trust_env=False) as client:
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
    assert 590 < ttl_left_s <= 600


async def test_the_time_left_is_told_by_the_clock_handed_in(standin: OllamaStandin) -> None:
    await in_thread(standin.load, "llama3", keep_alive="10m")
    provider = provider_at(standin.url, clock=SystemClock(offset_s=540))
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


# -- answers that are not as they should be --------------------------------------------------------------


class ScriptedOllama(httpx.AsyncBaseTransport):
    """Answers of look-alikes and of versions that the stand-in does not play."""

    def __init__(self, answers: dict[str, tuple[int, str]]) -> None:
        self.answers = answers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, text = self.answers.get(request.url.path, (404, "404 page not found"))
        return httpx.Response(status, text=text)


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
        assert await provider.runners() == ()
        await in_thread(other.start)
        assert is_idle(await provider.observe())
        await provider.load(LoadRequest(model="llama3"))
        await provider.close()


# -- loading ---------------------------------------------------------------------------------------------


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
    assert 80 < ttl_left_s <= 83.5
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
    assert 290 < ttl_left_s <= 300


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


async def has_runner(provider: OllamaProvider) -> bool:
    return bool(await provider.runners())


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


async def has_no_runner(provider: OllamaProvider) -> bool:
    return not await provider.runners()


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


async def was_called(standin: OllamaStandin, path: str, times: int) -> bool:
    return len(await in_thread(standin.calls, path)) >= times


async def test_closing_gives_up_loads(provider: OllamaProvider, standin: OllamaStandin) -> None:
    await in_thread(standin.set, load_s=60.0)
    load = asyncio.create_task(provider.load(LoadRequest(model="llama3")), name="load")
    await until(lambda: has_runner(provider))
    async with asyncio.timeout(3):
        await provider.close()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert await provider.runners() == ()


# -- unloading -------------------------------------------------------------------------------------------


async def test_v5_an_unload_is_answered_while_the_model_still_generates(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.set, tokens_per_s=20, answer_tokens=30)
    generation = await start_generation(standin, "llama3")
    await provider.unload("llama3")
    assert loaded_names(await provider.observe()) == {"llama3:latest"}
    assert await provider.runners()
    assert not generation.done()
    await observe_until(provider, is_idle)
    assert (await generation).json()["eval_count"] == 30  # finished, not aborted
    await until(lambda: has_no_runner(provider))


async def test_v5_memory_is_back_when_the_process_has_gone(
    provider: OllamaProvider, standin: OllamaStandin, process_table: ProcessTable
) -> None:
    await in_thread(standin.set, add_models=[BIG])
    await provider.load(LoadRequest(model="big"))
    runners = await provider.runners()
    assert process_table.usage(runners).ram_bytes > 200 * 2**20
    await provider.unload("big")
    await observe_until(provider, is_idle)
    await until(lambda: has_no_runner(provider))
    assert process_table.usage(runners).ram_bytes == 0


async def test_v4_a_model_that_a_client_loads_again_is_seen_and_goes_again(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await provider.load(LoadRequest(model="llama3"))
    for _ in range(3):
        await provider.unload("llama3")
        await observe_until(provider, is_idle)
        await in_thread(standin.load, "llama3")
        assert loaded_names(await provider.observe()) == {"llama3:latest"}
    await provider.unload("llama3")
    await observe_until(provider, is_idle)


async def test_unloading_a_model_that_nobody_has_is_fine(provider: OllamaProvider) -> None:
    await provider.unload("no-such-model")


async def test_a_model_deleted_while_loaded_cannot_be_unloaded_but_ended(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.set, is_old=True)
    await provider.installed()  # tells the files
    await provider.load(LoadRequest(model="llama3"))
    await in_thread(standin.set, remove_models=["llama3:latest"])
    with pytest.raises(NotSupported, match="deleted"):
        await provider.unload("llama3")
    await provider.kill("llama3")
    assert await provider.runners() == ()


async def test_an_unload_that_ollama_fails_says_so(provider: OllamaProvider, standin: OllamaStandin) -> None:
    await provider.load(LoadRequest(model="llama3"))
    await in_thread(standin.set, fail={"/api/generate": 500})
    with pytest.raises(UpstreamFailed, match="told to fail"):
        await provider.unload("llama3")


# -- processes -------------------------------------------------------------------------------------------


async def test_a_kill_ends_the_one_model_only(
    provider: OllamaProvider, standin: OllamaStandin, process_table: ProcessTable
) -> None:
    await provider.load(LoadRequest(model="llama3"))
    [first] = await provider.runners()
    await provider.load(LoadRequest(model="qwen3:8b"))
    await provider.kill("llama3")
    assert not process_table.is_alive(first)
    await observe_until(provider, lambda seen: loaded_names(seen) == {"qwen3:8b"})
    assert await chat(provider, "qwen3:8b")


async def test_a_kill_ends_a_running_generation(provider: OllamaProvider, standin: OllamaStandin) -> None:
    await in_thread(standin.set, answer_tokens=100_000)
    generation = await start_generation(standin, "llama3")
    await provider.kill("llama3")
    assert (await generation).status_code == 500
    await observe_until(provider, is_idle)
    assert await provider.runners() == ()


async def test_a_kill_ends_a_model_that_another_client_is_loading(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    await in_thread(standin.set, load_s=60.0)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        body = {"model": "llama3", "stream": False}
        foreign = asyncio.create_task(client.post(f"{standin.url}/api/generate", json=body), name="foreign")
        await until(lambda: has_runner(provider))
        await provider.kill("llama3")
        assert "signal: killed" in (await foreign).json()["error"]
    assert await provider.runners() == ()


async def test_what_holds_nothing_cannot_be_killed(provider: OllamaProvider) -> None:
    await provider.load(LoadRequest(model="qwen3:8b"))
    with pytest.raises(NotSupported):
        await provider.kill("llama3")
    assert loaded_names(await provider.observe()) == {"qwen3:8b"}


async def test_a_kill_works_while_the_server_hangs(hurried: OllamaProvider, standin: OllamaStandin) -> None:
    await hurried.load(LoadRequest(model="llama3"))
    await in_thread(standin.freeze)
    try:
        await hurried.kill("llama3")
    finally:
        await in_thread(standin.thaw)
    await until(lambda: has_no_runner(hurried))


async def test_another_machines_processes_are_not_ours(standin: OllamaStandin) -> None:
    provider = provider_at("http://192.0.2.1:11434", limits=QUICK_LIMITS)
    assert await provider.runners() == ()
    with pytest.raises(CannotKill) as error:
        await provider.kill("llama3")
    assert error.value.remedy
    await provider.close()


async def test_another_users_process_is_named_with_a_remedy(
    standin: OllamaStandin, process_table: LinuxProcesses
) -> None:
    class OfAnotherUser(LinuxProcesses):
        def kill(self, identity: object) -> None:
            raise CannotKill("not permitted")

    provider = provider_at(standin.url, processes=OfAnotherUser())
    await provider.load(LoadRequest(model="llama3"))
    with pytest.raises(CannotKill, match="another user") as error:
        await provider.kill("llama3")
    assert "systemctl restart ollama" in error.value.remedy
    assert loaded_names(await provider.observe()) == {"llama3:latest"}
    await provider.close()


async def test_v15_a_llama_server_that_is_not_below_ollama_is_left_alone(
    provider: OllamaProvider, standin: OllamaStandin
) -> None:
    with OllamaStandin() as other:
        await in_thread(other.load, "llama3")
        await provider.load(LoadRequest(model="llama3"))
        assert len(await provider.runners()) == 1
        await provider.kill("llama3")
        assert "llama3:latest" in await in_thread(other.loaded)
        assert other.state()["runners"].keys() == {"llama3:latest"}
        assert LinuxProcesses().describe(other.state()["runners"]["llama3:latest"]) is not None


async def test_an_unknown_model_names_the_way_to_get_it(provider: OllamaProvider) -> None:
    with pytest.raises(UnknownModel) as error:
        await provider.load(LoadRequest(model="nobody/has-it"))
    assert "tray-valet pull nobody/has-it:latest" in error.value.remedy
