"""What every provider must do: one class of tests, run against each adapter with its real engine.

An adapter's test file subclasses `ProviderContract` (and `ReachabilityContract` where the provider can be
away) and gives the fixtures below. Nothing here knows which engine is behind the port.

    class TestOllama(ProviderContract):
        @pytest.fixture
        async def provider(self) -> AsyncIterator[Provider]: ...   # nothing loaded; close it afterwards
        @pytest.fixture
        def model_names(self) -> tuple[str, str]: ...              # two installed models that can chat
        @pytest.fixture
        def slow_model(self) -> str: ...                           # a third one; its load takes 1 to 5 s
        @pytest.fixture
        def process_table(self) -> ProcessTable: ...               # the real one
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import httpx
import pytest

from tray_valet.core.errors import NotSupported, ProviderUnreachable, UnknownModel
from tray_valet.core.models import LoadedModel, LoadRequest, Observation
from tray_valet.core.ports import ProcessTable, Provider

SETTLE_S = 40.0  # the longest an unload or a kill may take to be seen
MISSING_MODEL = "no-such-model:none"


async def observe_until(provider: Provider, condition: Callable[[Observation], bool]) -> Observation:
    """Look at the provider until `condition` holds; fail after SETTLE_S seconds."""
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        observation = await provider.observe()
        if condition(observation):
            return observation
        assert time.monotonic() < deadline_s, f"still not so: {observation}"
        await asyncio.sleep(0.02)


def loaded_names(observation: Observation) -> set[str]:
    return {model.name for model in observation.loaded}


def is_idle(observation: Observation) -> bool:
    return not observation.loaded and not observation.loading


def the_one(observation: Observation, name: str) -> LoadedModel:
    [model] = [model for model in observation.loaded if model.name == name]
    return model


async def chat(provider: Provider, model: str) -> str:
    """Ask the loaded model something over the upstream address; return its words."""
    upstream = provider.upstream(model)
    body = {"model": upstream.model, "max_tokens": 32, "messages": [{"role": "user", "content": "Hi"}]}
    async with httpx.AsyncClient(trust_env=False, timeout=240) as client:
        answer = await client.post(
            f"{upstream.base_url}/v1/chat/completions", json=body, headers=upstream.headers
        )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


class ProviderContract:
    """The port's promises, one test each."""

    async def test_nothing_is_loaded_at_first(self, provider: Provider) -> None:
        assert is_idle(await provider.observe())
        assert await provider.runners() == ()

    async def test_c4_installed_names_every_model_in_its_canonical_spelling(
        self, provider: Provider, model_names: tuple[str, str], slow_model: str
    ) -> None:
        installed = {model.name for model in await provider.installed()}
        assert {provider.canonical(name) for name in (*model_names, slow_model)} <= installed
        assert all(provider.canonical(name) == name for name in installed)

    async def test_installed_loads_nothing(self, provider: Provider) -> None:
        await provider.installed()
        assert is_idle(await provider.observe())

    async def test_a_loaded_model_is_seen_and_answers(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        name = provider.canonical(model_names[0])
        loaded = await provider.load(LoadRequest(model=model_names[0]))
        assert loaded.name == name
        seen = the_one(await provider.observe(), name)
        assert seen.size_bytes > 0
        assert seen.context_length == loaded.context_length
        assert await chat(provider, name)

    async def test_the_context_that_was_asked_for_is_the_one_reported(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        loaded = await provider.load(LoadRequest(model=model_names[0], context_length=1024))
        assert loaded.context_length == 1024
        seen = the_one(await provider.observe(), provider.canonical(model_names[0]))
        assert seen.context_length == 1024

    async def test_another_context_replaces_the_one_before(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        name = provider.canonical(model_names[0])
        await provider.load(LoadRequest(model=name, context_length=1024))
        again = await provider.load(LoadRequest(model=name, context_length=2048))
        assert again.context_length == 2048
        observation = await provider.observe()
        assert the_one(observation, name).context_length == 2048
        assert await chat(provider, name)

    async def test_loading_again_with_the_same_context_keeps_the_runner_and_sets_the_ttl_anew(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        name = provider.canonical(model_names[0])
        await provider.load(LoadRequest(model=name, context_length=1024, ttl_s=60))
        before = await provider.runners()
        await provider.load(LoadRequest(model=name, context_length=1024, ttl_s=3600))
        assert await provider.runners() == before
        ttl_left_s = the_one(await provider.observe(), name).ttl_left_s
        assert ttl_left_s is not None
        assert 3500 < ttl_left_s <= 3601

    async def test_a_ttl_without_end_is_reported_as_none(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        name = provider.canonical(model_names[0])
        await provider.load(LoadRequest(model=name, ttl_s=math.inf))
        assert the_one(await provider.observe(), name).ttl_left_s is None

    async def test_an_unloaded_model_goes_and_its_process_with_it(
        self, provider: Provider, model_names: tuple[str, str], process_table: ProcessTable
    ) -> None:
        await provider.load(LoadRequest(model=model_names[0]))
        runners = await provider.runners()
        assert runners
        assert all(process_table.is_alive(runner) for runner in runners)
        await provider.unload(provider.canonical(model_names[0]))
        await observe_until(provider, is_idle)
        deadline_s = time.monotonic() + SETTLE_S
        while any(process_table.is_alive(runner) for runner in runners):
            assert time.monotonic() < deadline_s, "a runner outlives its model"
            await asyncio.sleep(0.02)
        assert await provider.runners() == ()

    async def test_unloading_what_is_not_loaded_is_fine(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        await provider.unload(provider.canonical(model_names[0]))
        assert is_idle(await provider.observe())

    async def test_a_model_loads_again_after_an_unload(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        name = provider.canonical(model_names[0])
        await provider.load(LoadRequest(model=name, context_length=1024))
        await provider.unload(name)
        await observe_until(provider, is_idle)
        assert (await provider.load(LoadRequest(model=name, context_length=1024))).context_length == 1024
        assert await chat(provider, name)

    async def test_two_models_are_held_at_once_and_go_one_by_one(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        first, second = map(provider.canonical, model_names)
        await asyncio.gather(*(provider.load(LoadRequest(model=name)) for name in (first, second)))
        assert loaded_names(await provider.observe()) == {first, second}
        await provider.unload(first)
        await observe_until(provider, lambda seen: loaded_names(seen) == {second})
        assert await chat(provider, second)
        await provider.unload(second)
        await observe_until(provider, is_idle)

    async def test_a_kill_ends_the_process_that_holds_the_model(
        self, provider: Provider, model_names: tuple[str, str], process_table: ProcessTable
    ) -> None:
        name = provider.canonical(model_names[0])
        await provider.load(LoadRequest(model=name))
        runners = await provider.runners()
        await provider.kill(name)
        await observe_until(provider, lambda seen: name not in loaded_names(seen))
        assert not any(process_table.is_alive(runner) for runner in runners)

    async def test_a_model_that_nobody_has_is_unknown(self, provider: Provider) -> None:
        with pytest.raises(UnknownModel):
            await provider.load(LoadRequest(model=MISSING_MODEL))
        assert is_idle(await provider.observe())

    async def test_v21_a_slow_load_is_seen_as_loading_and_completes(
        self, provider: Provider, slow_model: str
    ) -> None:
        name = provider.canonical(slow_model)
        load = asyncio.create_task(provider.load(LoadRequest(model=name)), name="test-slow-load")
        await observe_until(provider, lambda seen: name in seen.loading)
        assert not load.done()
        assert (await load).name == name
        observation = await provider.observe()
        assert name in loaded_names(observation)
        assert observation.loading == ()

    async def test_another_model_loads_while_a_slow_one_is_on_its_way(
        self, provider: Provider, slow_model: str, model_names: tuple[str, str]
    ) -> None:
        slow = asyncio.create_task(provider.load(LoadRequest(model=slow_model)), name="test-slow-load")
        await observe_until(provider, lambda seen: provider.canonical(slow_model) in seen.loading)
        await provider.load(LoadRequest(model=model_names[0]))
        assert not slow.done()
        assert await chat(provider, provider.canonical(model_names[0]))
        await slow

    async def test_a_cancelled_load_leaves_nothing_behind(self, provider: Provider, slow_model: str) -> None:
        name = provider.canonical(slow_model)
        load = asyncio.create_task(provider.load(LoadRequest(model=name)), name="test-cancelled-load")
        await observe_until(provider, lambda seen: name in seen.loading)
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        await observe_until(provider, is_idle)
        assert await provider.runners() == ()

    async def test_concurrent_loads_of_one_model_are_one_load(
        self, provider: Provider, slow_model: str
    ) -> None:
        loads = [provider.load(LoadRequest(model=slow_model, context_length=1024)) for _ in range(5)]
        loaded = await asyncio.gather(*loads)
        assert {model.pid for model in loaded} == {loaded[0].pid}
        assert len(await provider.runners()) == 1
        assert len((await provider.observe()).loaded) == 1

    async def test_one_of_several_waiting_callers_may_leave(
        self, provider: Provider, slow_model: str
    ) -> None:
        name = provider.canonical(slow_model)
        stays = asyncio.create_task(provider.load(LoadRequest(model=name)), name="test-stays")
        leaves = asyncio.create_task(provider.load(LoadRequest(model=name)), name="test-leaves")
        await observe_until(provider, lambda seen: name in seen.loading)
        leaves.cancel()
        assert (await stays).name == name
        assert await chat(provider, name)

    async def test_there_is_no_upstream_for_a_model_that_nobody_has(self, provider: Provider) -> None:
        with pytest.raises(UnknownModel):
            provider.upstream(MISSING_MODEL)

    async def test_a_log_is_lines_of_text(self, provider: Provider, model_names: tuple[str, str]) -> None:
        name = provider.canonical(model_names[0])
        assert provider.log_tail(name) == ()
        await provider.load(LoadRequest(model=name))
        assert all(isinstance(line, str) and "\n" not in line for line in provider.log_tail(name))

    async def test_the_provider_says_what_it_is(self, provider: Provider) -> None:
        assert provider.name
        assert provider.endpoint
        assert isinstance(provider.is_local, bool)
        assert provider.can_unload is True


class ReachabilityContract:
    """For providers that can be away. `unreachable_provider`: nothing answers at its address."""

    async def test_looking_at_a_provider_that_is_away_says_so(self, unreachable_provider: Provider) -> None:
        with pytest.raises(ProviderUnreachable):
            await unreachable_provider.observe()
        with pytest.raises(ProviderUnreachable):
            await unreachable_provider.installed()

    async def test_loading_and_unloading_there_says_so(
        self, unreachable_provider: Provider, model_names: tuple[str, str]
    ) -> None:
        with pytest.raises(ProviderUnreachable):
            await unreachable_provider.load(LoadRequest(model=model_names[0]))
        with pytest.raises(ProviderUnreachable):
            await unreachable_provider.unload(model_names[0])


class ServedElsewhereContract:
    """For providers whose models are loaded by whoever runs them; `model_names` are two that it has."""

    async def test_installed_names_the_models_in_their_canonical_spelling(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        installed = {model.name for model in await provider.installed()}
        assert set(model_names) <= installed
        assert all(provider.canonical(name) == name for name in installed)

    async def test_nothing_is_in_memory_here(self, provider: Provider, model_names: tuple[str, str]) -> None:
        await provider.load(LoadRequest(model=model_names[0]))
        assert is_idle(await provider.observe())
        assert await provider.runners() == ()
        assert await provider.needs(LoadRequest(model=model_names[0])) is None

    async def test_a_load_answers_at_once_and_the_model_can_be_asked(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        loaded = await provider.load(LoadRequest(model=model_names[0], ttl_s=60))
        assert loaded.name == model_names[0]
        assert loaded.needs_gpu is provider.is_local
        assert await chat(provider, model_names[0])

    async def test_unknown_models_are_told(self, provider: Provider) -> None:
        await provider.installed()
        with pytest.raises(UnknownModel):
            await provider.load(LoadRequest(model=MISSING_MODEL))
        with pytest.raises(UnknownModel):
            provider.upstream(MISSING_MODEL)

    async def test_it_cannot_unload_and_says_so(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        assert provider.can_unload is False
        with pytest.raises(NotSupported):
            await provider.unload(model_names[0])
        with pytest.raises(NotSupported):
            await provider.kill(model_names[0])

    async def test_what_means_nothing_here_is_fine(
        self, provider: Provider, model_names: tuple[str, str]
    ) -> None:
        provider.touch(model_names[0], 60.0)
        provider.yield_cpu(True)
        provider.yield_cpu(False)
        assert provider.log_tail(model_names[0]) == ()
        assert provider.name
        assert provider.endpoint
        assert provider.paths
