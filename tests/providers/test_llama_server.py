"""The llama-server provider, with real engines."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.providers.provider_contract import ProviderContract, chat, is_idle, observe_until, the_one
from tray_valet.core.config_providers import LlamaServerModelSettings, LlamaServerSettings
from tray_valet.core.engines import Engine
from tray_valet.core.errors import EngineMissing, InvalidValue, LoadFailed, UnknownModel
from tray_valet.core.models import ConditionType, LoadRequest
from tray_valet.core.ports import ProcessTable
from tray_valet.core.processes import ProcessIdentity
from tray_valet.desktop.child_tie import system_child_tie
from tray_valet.engine.tiny_model import REPLY
from tray_valet.providers.llama_server import LlamaServerProvider
from tray_valet.providers.runner import RunnerExit, RunnerState
from tray_valet.providers.runner_records import RunnerRecords
from tray_valet.services.clock import SystemClock

# Becomes the real engine; for the model with “slow” in its path only after a while.
SLOW_START = """
import os, sys, time
time.sleep(3 * any(part.endswith("slow.gguf") for part in sys.argv))
os.execv(sys.argv[1], sys.argv[1:])
"""

MakeProvider = Callable[..., LlamaServerProvider]


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


@pytest.fixture
async def crashes() -> list[RunnerExit]:
    return []


@pytest.fixture
async def make_provider(
    engine: Engine,
    tiny_model: Path,
    tmp_path: Path,
    process_table: ProcessTable,
    crashes: list[RunnerExit],
) -> AsyncIterator[MakeProvider]:
    """Builds providers over models named one, two and slow; all are closed at the end."""
    made: list[LlamaServerProvider] = []
    for name in ("one", "two", "slow"):
        (tmp_path / f"{name}.gguf").symlink_to(tiny_model)
    wrapped = msgspec.structs.replace(engine, argv=(sys.executable, "-c", SLOW_START, *engine.argv))

    def make(
        *,
        flags: tuple[str, ...] = ("--ctx-size", "4096"),
        cpu_only: bool = False,
        settings: LlamaServerSettings | None = None,
        clock: SystemClock | HandClock | None = None,
        engine: Engine = wrapped,
        default_ttl_s: float = float("inf"),
    ) -> LlamaServerProvider:
        models = {
            name: LlamaServerModelSettings(model_path=f"{name}.gguf", flags=flags, cpu_only=cpu_only)
            for name in ("one", "two", "slow")
        }
        provider = LlamaServerProvider(
            "local",
            settings or LlamaServerSettings(base_models_path=str(tmp_path), first_port=18_085, models=models),
            locate=lambda _path: engine,
            base_dir=tmp_path,
            environ=os.environ,
            table=process_table,
            tie=system_child_tie(),
            records=RunnerRecords(tmp_path / "runners.json"),
            clock=clock or SystemClock(),
            default_ttl_s=default_ttl_s,
            on_crash=crashes.append,
        )
        made.append(provider)
        return provider

    yield make
    for provider in made:
        await provider.close()


@pytest.fixture
def provider(make_provider: MakeProvider) -> LlamaServerProvider:
    return make_provider()


async def runners_of(provider: LlamaServerProvider, count: int) -> tuple[ProcessIdentity, ...]:
    """Wait until the provider has that many processes."""
    deadline_s = time.monotonic() + 40
    while len(runners := await provider.runners()) < count:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)
    return runners


class TestLlamaServerProvider(ProviderContract):
    """The port's contract."""

    @pytest.fixture
    def model_names(self) -> tuple[str, str]:
        return "one", "two"

    @pytest.fixture
    def slow_model(self) -> str:
        return "slow"


async def test_c3_a_model_whose_file_is_missing_is_told_and_hides_no_other(
    make_provider: MakeProvider, tiny_model: Path, tmp_path: Path
) -> None:
    paths = {"one": tiny_model, "lost": tmp_path / "moved.gguf", "lost too": tmp_path / "moved.gguf"}
    models = {name: LlamaServerModelSettings(model_path=str(path)) for name, path in paths.items()}
    provider = make_provider(settings=LlamaServerSettings(first_port=18_085, models=models))
    seen = await provider.observe()
    assert set(seen.unloadable) == {"lost", "lost too"}
    assert str(paths["lost"]) in seen.unloadable["lost"]
    assert "1 more" in seen.problems[ConditionType.FILE_MISSING]
    assert [model.name for model in await provider.installed()] == ["one"]
    assert (await provider.load(LoadRequest(model="one"))).name == "one"
    paths["lost"].symlink_to(tiny_model)
    assert len(await provider.installed()) == 3
    seen = await provider.observe()
    assert (seen.problems, seen.unloadable) == ({}, {})


async def test_a_loaded_model_answers_with_its_sentence(provider: LlamaServerProvider) -> None:
    await provider.load(LoadRequest(model="one"))
    assert await chat(provider, "one") == REPLY


async def test_only_who_knows_this_runs_key_is_let_in(provider: LlamaServerProvider) -> None:
    await provider.load(LoadRequest(model="one"))
    upstream = provider.upstream("one")
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        answer = await client.post(f"{upstream.base_url}/v1/chat/completions", json=body)
    assert answer.status_code == 401
    first_key = upstream.headers
    await provider.unload("one")
    await provider.load(LoadRequest(model="one"))
    assert provider.upstream("one").headers != first_key


async def test_the_key_is_not_in_the_command_line(
    provider: LlamaServerProvider, process_table: ProcessTable
) -> None:
    loaded = await provider.load(LoadRequest(model="one"))
    assert loaded.pid is not None
    process = process_table.describe(loaded.pid)
    assert process is not None
    key = provider.upstream("one").headers["Authorization"].removeprefix("Bearer ")
    assert key not in " ".join(process.argv)


async def test_the_runner_listens_on_loopback_only(
    provider: LlamaServerProvider, process_table: ProcessTable
) -> None:
    await provider.load(LoadRequest(model="one"))
    assert provider.upstream("one").base_url.startswith("http://127.0.0.1:")


async def test_flags_cannot_move_the_runner_elsewhere(make_provider: MakeProvider) -> None:
    provider = make_provider(flags=("--host", "0.0.0.0", "--port", "9", "--api-key", "x", "-c", "2048"))
    loaded = await provider.load(LoadRequest(model="one"))
    assert loaded.context_length == 2048
    assert provider.upstream("one").base_url.startswith("http://127.0.0.1:18")
    assert await chat(provider, "one") == REPLY


async def test_the_context_of_the_flags_is_reported_unless_the_load_names_one(
    provider: LlamaServerProvider,
) -> None:
    assert (await provider.load(LoadRequest(model="one"))).context_length == 4096
    assert (await provider.load(LoadRequest(model="two", context_length=1000))).context_length == 1000


async def test_the_engines_own_context_is_reported_where_nobody_named_one(
    make_provider: MakeProvider,
) -> None:
    provider = make_provider(flags=())
    assert (await provider.load(LoadRequest(model="one"))).context_length == 32_768


async def test_a_context_that_is_shared_by_slots_is_reported_whole(make_provider: MakeProvider) -> None:
    provider = make_provider(flags=("-c", "4096", "-np", "2"))
    assert (await provider.load(LoadRequest(model="one"))).context_length == 4096


async def test_a_context_below_512_is_refused(provider: LlamaServerProvider) -> None:
    with pytest.raises(InvalidValue):
        await provider.load(LoadRequest(model="one", context_length=511))
    assert is_idle(await provider.observe())


async def test_loading_without_a_context_takes_what_is_loaded(provider: LlamaServerProvider) -> None:
    first = await provider.load(LoadRequest(model="one", context_length=1024))
    again = await provider.load(LoadRequest(model="one"))
    assert (again.pid, again.context_length) == (first.pid, 1024)


async def test_the_time_to_live_runs_from_the_last_use(make_provider: MakeProvider) -> None:
    clock = HandClock()
    provider = make_provider(clock=clock, default_ttl_s=300)
    assert (await provider.load(LoadRequest(model="one"))).ttl_left_s == 300
    clock.now_s += 100
    assert the_one(await provider.observe(), "one").ttl_left_s == 200
    provider.touch("one")
    assert the_one(await provider.observe(), "one").ttl_left_s == 300
    clock.now_s += 1_000
    assert the_one(await provider.observe(), "one").ttl_left_s == 0
    assert (await provider.load(LoadRequest(model="one", ttl_s=50))).ttl_left_s == 50
    clock.now_s += 10
    assert (await provider.load(LoadRequest(model="one"))).ttl_left_s == 50  # kept, counted anew


async def test_a_missing_file_is_named(provider: LlamaServerProvider, tmp_path: Path) -> None:
    (tmp_path / "one.gguf").unlink()
    with pytest.raises(LoadFailed, match=r"one\.gguf"):
        await provider.load(LoadRequest(model="one"))
    assert is_idle(await provider.observe())
    assert {model.name for model in await provider.installed()} == {"two", "slow"}


@pytest.fixture
def broken_one(provider: LlamaServerProvider, tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "one.gguf").unlink()
    (tmp_path / "one.gguf").write_bytes(tiny_model.read_bytes()[:5_000])


@pytest.mark.usefixtures("broken_one")
async def test_r1_a_broken_file_fails_with_the_line_that_says_why_and_the_others_go_on(
    provider: LlamaServerProvider,
) -> None:
    with pytest.raises(LoadFailed) as failure:
        await provider.load(LoadRequest(model="one"))
    assert failure.value.log_tail
    assert "one could not be loaded" in failure.value.message
    assert provider.states()["one"] is RunnerState.FAILED
    assert provider.log_tail("one") == failure.value.log_tail
    await provider.load(LoadRequest(model="two"))
    assert await chat(provider, "two") == REPLY


async def test_an_unknown_flag_fails_with_its_name(make_provider: MakeProvider) -> None:
    provider = make_provider(flags=("--no-such-flag",))
    with pytest.raises(LoadFailed, match="--no-such-flag"):
        await provider.load(LoadRequest(model="one"))


async def test_a_program_that_is_no_engine_fails(make_provider: MakeProvider, engine: Engine) -> None:
    no_engine = msgspec.structs.replace(engine, argv=("/bin/true",))
    with pytest.raises(LoadFailed, match="exit code 0"):
        await make_provider(engine=no_engine).load(LoadRequest(model="one"))


async def test_a_missing_engine_is_told_before_anything_is_started(
    tmp_path: Path, tiny_model: Path, process_table: ProcessTable
) -> None:
    def nothing_here(_path: str | None) -> Engine:
        raise EngineMissing("There is no engine.")

    provider = LlamaServerProvider(
        "local",
        LlamaServerSettings(models={"one": LlamaServerModelSettings(model_path=str(tiny_model))}),
        locate=nothing_here,
        base_dir=tmp_path,
        environ={},
        table=process_table,
        tie=system_child_tie(),
        records=RunnerRecords(tmp_path / "runners.json"),
        clock=SystemClock(),
    )
    with pytest.raises(EngineMissing):
        await provider.load(LoadRequest(model="one"))
    await provider.close()


async def test_a_model_that_is_not_loaded_has_no_upstream(provider: LlamaServerProvider) -> None:
    with pytest.raises(UnknownModel, match="not loaded"):
        provider.upstream("one")


async def test_installed_tells_what_a_file_holds_and_what_the_flags_make_of_it(
    make_provider: MakeProvider,
) -> None:
    models = {model.name: model for model in await make_provider(flags=()).installed()}
    assert models["one"].context_length == 32_768
    assert models["one"].details["family"] == "llama"
    assert models["one"].can_chat
    embedding = (await make_provider(flags=("--embedding", "-c", "512"), cpu_only=True).installed())[0]
    assert (embedding.can_chat, embedding.can_embed, embedding.needs_gpu) == (False, True, False)
    assert embedding.context_length == 512


async def test_an_embedding_model_gives_vectors(make_provider: MakeProvider) -> None:
    provider = make_provider(flags=("--embedding", "--pooling", "mean", "-c", "512"))
    await provider.load(LoadRequest(model="one"))
    upstream = provider.upstream("one")
    async with httpx.AsyncClient(trust_env=False, headers=upstream.headers, timeout=60) as client:
        answer = await client.post(f"{upstream.base_url}/v1/embeddings", json={"input": "Hi"})
    assert len(answer.json()["data"][0]["embedding"]) == 128


@pytest.mark.skipif(sys.platform != "linux", reason="reads the environment in /proc")
async def test_a_cpu_only_model_sees_no_gpu(make_provider: MakeProvider) -> None:
    provider = make_provider(flags=("-ngl", "99", "-c", "512"), cpu_only=True)
    loaded = await provider.load(LoadRequest(model="one"))
    assert not loaded.needs_gpu
    environ = await asyncio.to_thread(Path(f"/proc/{loaded.pid}/environ").read_text)
    assert "CUDA_VISIBLE_DEVICES=\0" in environ


async def test_a_crash_is_told_with_its_cause_and_the_model_loads_again(
    provider: LlamaServerProvider, crashes: list[RunnerExit], process_table: ProcessTable
) -> None:
    await provider.load(LoadRequest(model="one"))
    [runner] = await provider.runners()
    process_table.kill(runner)
    await observe_until(provider, is_idle)
    assert [(notice.model, "SIGKILL" in notice.reason) for notice in crashes] == [("one", True)]
    assert provider.states()["one"] is RunnerState.CRASHED
    await provider.load(LoadRequest(model="one"))
    assert await chat(provider, "one") == REPLY


async def test_an_unload_is_no_crash(provider: LlamaServerProvider, crashes: list[RunnerExit]) -> None:
    await provider.load(LoadRequest(model="one"))
    await provider.unload("one")
    assert crashes == []
    assert provider.states()["one"] is RunnerState.OFF


async def test_r4_an_unload_during_a_load_leaves_no_process(
    provider: LlamaServerProvider, process_table: ProcessTable
) -> None:
    load = asyncio.create_task(provider.load(LoadRequest(model="slow")), name="test-load")
    await observe_until(provider, lambda seen: seen.loading == ("slow",))
    runners = await runners_of(provider, 1)
    await provider.unload("slow")
    with pytest.raises(LoadFailed, match="unloaded while"):
        await load
    assert is_idle(await provider.observe())
    assert not any(map(process_table.is_alive, runners))


async def test_r5_cold_requests_start_one_process(
    provider: LlamaServerProvider, process_table: ProcessTable
) -> None:
    before = len(process_table.descendants(os.getpid()))
    await asyncio.gather(*(provider.load(LoadRequest(model="one")) for _ in range(20)))
    assert len(process_table.descendants(os.getpid())) - before == 1


async def test_loads_with_different_contexts_at_once_all_get_theirs(provider: LlamaServerProvider) -> None:
    lengths = (1024, 2048, 1024, 3072)
    loaded = await asyncio.gather(
        *(provider.load(LoadRequest(model="one", context_length=length)) for length in lengths)
    )
    assert {model.context_length for model in loaded} <= set(lengths)
    assert len(await provider.runners()) == 1


async def test_changed_settings_act_at_the_next_load(make_provider: MakeProvider, tmp_path: Path) -> None:
    provider = make_provider()
    first = await provider.load(LoadRequest(model="one"))
    changed = LlamaServerModelSettings(model_path="one.gguf", flags=("-c", "2048"))
    provider.reconfigure(
        LlamaServerSettings(base_models_path=str(tmp_path), first_port=18_085, models={"one": changed})
    )
    assert the_one(await provider.observe(), "one").pid == first.pid
    assert (await provider.load(LoadRequest(model="one"))).context_length == 2048


async def test_memory_comes_back_when_a_stream_is_killed(
    make_provider: MakeProvider, process_table: ProcessTable
) -> None:
    provider = make_provider()
    await provider.load(LoadRequest(model="one"))
    [runner] = await provider.runners()
    upstream = provider.upstream("one")
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "ignore_eos": True}
    async with (
        httpx.AsyncClient(trust_env=False, headers=upstream.headers, timeout=60) as client,
        client.stream("POST", f"{upstream.base_url}/v1/chat/completions", json=body) as stream,
    ):
        lines = stream.aiter_lines()
        assert (await anext(lines)).startswith("data:")
        await provider.kill("one")
        assert not process_table.is_alive(runner)
        rest = []
        try:
            async for line in lines:
                rest.append(line)
        except httpx.HTTPError:
            pass
        assert "data: [DONE]" not in rest
    assert is_idle(await provider.observe())


async def test_an_unload_during_a_stream_is_bounded(provider: LlamaServerProvider) -> None:
    await provider.load(LoadRequest(model="one"))
    upstream = provider.upstream("one")
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "ignore_eos": True}
    async with (
        httpx.AsyncClient(trust_env=False, headers=upstream.headers, timeout=60) as client,
        client.stream("POST", f"{upstream.base_url}/v1/chat/completions", json=body) as stream,
    ):
        await anext(stream.aiter_lines())
        async with asyncio.timeout(30):  # the stream itself would go on for ever
            await provider.unload("one")
        assert is_idle(await provider.observe())


async def test_close_ends_everything_and_refuses_more(
    provider: LlamaServerProvider, process_table: ProcessTable
) -> None:
    await provider.load(LoadRequest(model="one"))
    slow = asyncio.create_task(provider.load(LoadRequest(model="slow")), name="test-load")
    await observe_until(provider, lambda seen: seen.loading == ("slow",))
    runners = await runners_of(provider, 2)
    await provider.close()
    assert not any(map(process_table.is_alive, runners))
    with pytest.raises(LoadFailed):
        await slow
    with pytest.raises(LoadFailed, match="closing"):
        await provider.load(LoadRequest(model="one"))


async def test_a_script_around_the_engine_leaves_no_engine_behind(
    make_provider: MakeProvider, engine: Engine, tmp_path: Path, process_table: ProcessTable
) -> None:
    script = tmp_path / "wrapper.sh"
    command = " ".join(f"'{part}'" for part in engine.argv)
    script.write_text(f'#!/bin/sh\n{command} "$@"\ntrue\n')
    script.chmod(0o755)
    provider = make_provider(engine=msgspec.structs.replace(engine, argv=(str(script),)))
    for end in (provider.unload, provider.kill):
        await provider.load(LoadRequest(model="one"))
        runners = await provider.runners()
        assert len(runners) == 2
        await end("one")
        await observe_until(provider, is_idle)
        deadline_s = time.monotonic() + 40
        while any(map(process_table.is_alive, runners)):
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)
