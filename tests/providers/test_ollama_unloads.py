"""Unloading at Ollama, and ending its processes where that does not help."""

from __future__ import annotations

import asyncio
import sys

import httpx
import pytest

from tests.providers.ollama_bench import (
    QUICK_LIMITS,
    has_no_runner,
    has_runner,
    in_thread,
    provider_at,
    start_generation,
    until,
)
from tests.providers.provider_contract import (
    chat,
    is_idle,
    loaded_names,
    observe_until,
)
from tests.standins.ollama import OllamaStandin
from tray_valet.core.errors import (
    CannotKill,
    NotSupported,
    UnknownModel,
    UpstreamFailed,
)
from tray_valet.core.models import LoadRequest
from tray_valet.core.ports import ProcessTable
from tray_valet.providers.ollama import OllamaProvider
from tray_valet.sensing.linux_processes import LinuxProcesses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the process table of /proc")

BIG = {"name": "big:latest", "memory_bytes": 200 * 2**20}


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
