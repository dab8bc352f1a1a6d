"""Runners on the CPU beside a game: few threads, idle priority, and full speed again afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.providers.provider_contract import chat, observe_until, the_one
from tray_valet.core.config_providers import LlamaServerModelSettings, LlamaServerSettings
from tray_valet.core.engines import Engine
from tray_valet.core.errors import NotSupported
from tray_valet.core.models import LoadRequest
from tray_valet.core.ports import CpuPriority, ProcessTable
from tray_valet.desktop.child_tie import system_child_tie
from tray_valet.desktop.cpu_priority import LinuxCpuPriority
from tray_valet.engine.tiny_model import REPLY
from tray_valet.providers.llama_server import LlamaServerProvider
from tray_valet.providers.runner import RunnerExit
from tray_valet.providers.runner_command import runner_command, threads_in_background
from tray_valet.providers.runner_records import RunnerRecords
from tray_valet.services.clock import SystemClock

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at Linux's priorities"),
    pytest.mark.timeout(400),  # runners of idle priority have the CPU only when nobody else wants it
]
BEHIND = LoadRequest(model="cpu", is_in_background=True)
IN_FRONT = LoadRequest(model="cpu")

Make = Callable[..., LlamaServerProvider]


class OneWay(LinuxCpuPriority):
    """What a usual user may do on Linux: lower, and not come back."""

    def restore(self, pid: int) -> None:
        raise NotSupported("no")


@pytest.fixture
async def make(
    engine: Engine, tiny_model: Path, tmp_path: Path, process_table: ProcessTable
) -> AsyncIterator[Make]:
    made: list[LlamaServerProvider] = []

    def make(priority: CpuPriority | None = None, on_crash: object = None) -> LlamaServerProvider:
        flags = ("-c", "2048", "--threads", "2", "--prio", "2")
        models = {
            "cpu": LlamaServerModelSettings(model_path=str(tiny_model), flags=flags, cpu_only=True),
            "gpu": LlamaServerModelSettings(model_path=str(tiny_model), flags=("-c", "2048")),
        }
        provider = LlamaServerProvider(
            "local",
            LlamaServerSettings(first_port=18_585, models=models),
            locate=lambda _path: engine,
            base_dir=tmp_path,
            environ=os.environ,
            table=process_table,
            tie=system_child_tie(),
            records=RunnerRecords(tmp_path / "runners.json"),
            clock=SystemClock(),
            priority=priority or LinuxCpuPriority(),
            core_count=8,
            on_crash=on_crash or (lambda _notice: None),  # type: ignore[arg-type]
        )
        made.append(provider)
        return provider

    yield make
    for provider in made:
        await provider.close()


async def pid_of(provider: LlamaServerProvider, model: str = "cpu") -> int:
    pid = the_one(await provider.observe(), model).pid
    assert pid is not None
    return pid


def policies(pid: int) -> set[int]:
    found = set()
    for tid in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):  # a thread may end meanwhile
            found.add(os.sched_getscheduler(int(tid)))
    return found


async def test_a_runner_started_beside_a_game_has_few_threads_at_idle_priority(make: Make) -> None:
    provider = make()
    loaded = await provider.load(BEHIND)
    assert loaded.is_in_background
    pid = await pid_of(provider)
    argv = psutil.Process(pid).cmdline()
    assert argv[argv.index("--threads") + 1] == argv[argv.index("--threads-batch") + 1] == "2"
    assert "--prio" not in argv
    assert policies(pid) == {os.SCHED_IDLE}
    assert await chat(provider, "cpu") == REPLY
    assert policies(pid) == {os.SCHED_IDLE}


async def test_a_model_for_the_gpu_is_started_as_ever(make: Make) -> None:
    provider = make()
    loaded = await provider.load(LoadRequest(model="gpu", is_in_background=True))
    assert not loaded.is_in_background
    assert policies(await pid_of(provider, "gpu")) == {os.SCHED_OTHER}


async def test_after_the_game_it_is_started_anew_at_full_speed(make: Make) -> None:
    provider = make()
    await provider.load(BEHIND)
    before = await pid_of(provider)
    await provider.load(BEHIND)
    assert await pid_of(provider) == before, "beside the game it stays"
    loaded = await provider.load(IN_FRONT)
    assert not loaded.is_in_background
    after = await pid_of(provider)
    assert after != before
    assert os.SCHED_IDLE not in policies(after)
    assert "--prio" in psutil.Process(after).cmdline()
    await provider.load(BEHIND)
    assert await pid_of(provider) == after, "a quick one serves a game's time too"


async def test_a_runner_that_was_there_is_lowered_for_the_game_and_raised_after_it(make: Make) -> None:
    provider = make()
    await provider.load(IN_FRONT)
    await provider.load(LoadRequest(model="gpu"))
    pid, other = await pid_of(provider), await pid_of(provider, "gpu")
    provider.yield_cpu(True)
    assert policies(pid) == {os.SCHED_IDLE}
    assert policies(other) == {os.SCHED_OTHER}
    assert the_one(await provider.observe(), "cpu").is_in_background
    provider.yield_cpu(False)
    if os.geteuid() == 0:
        assert policies(pid) == {os.SCHED_OTHER}
        assert not the_one(await provider.observe(), "cpu").is_in_background
        await provider.load(IN_FRONT)
        assert await pid_of(provider) == pid


async def test_one_that_cannot_be_raised_is_started_anew_when_it_is_asked_for(make: Make) -> None:
    provider = make(OneWay())
    await provider.load(IN_FRONT)
    before = await pid_of(provider)
    provider.yield_cpu(True)
    provider.yield_cpu(False)
    assert the_one(await provider.observe(), "cpu").is_in_background
    assert await pid_of(provider) == before, "nobody asked for it yet"
    await provider.load(IN_FRONT)
    assert await pid_of(provider) != before


async def test_a_runner_that_becomes_ready_during_the_game_is_lowered_too(make: Make) -> None:
    provider = make()
    provider.yield_cpu(True)
    await provider.load(IN_FRONT)  # asked for before the game began
    assert policies(await pid_of(provider)) == {os.SCHED_IDLE}


async def test_a_crash_tells_how_the_model_was_loaded(make: Make) -> None:
    notices: list[RunnerExit] = []
    provider = make(on_crash=notices.append)
    await provider.load(LoadRequest(model="cpu", context_length=1024, ttl_s=77.0))
    os.kill(await pid_of(provider), 9)
    await observe_until(provider, lambda seen: not seen.loaded and bool(notices))
    assert notices[0].request == LoadRequest(model="cpu", context_length=1024, ttl_s=77.0)
    assert "SIGKILL" in notices[0].reason


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (7, 1), (8, 2), (32, 8)])
def test_a_quarter_of_the_cores_is_for_the_background(cores: int, threads: int) -> None:
    assert threads_in_background(cores) == threads


def test_variables_do_not_bring_threads_back(engine: Engine) -> None:
    model = LlamaServerModelSettings(
        model_path="x.gguf", flags=("-t", "8", "-tb", "8", "--poll", "100"), cpu_only=True
    )
    command = runner_command(
        engine,
        LlamaServerSettings(models={"x": model}),
        alias="x",
        model_path="x.gguf",
        context_length=None,
        port=1,
        api_key="k",
        environ={"LLAMA_ARG_THREADS": "8", "LLAMA_ARG_THREADS_BATCH": "8"},
        background_threads=1,
    )
    assert command.is_in_background
    assert not {"-t", "-tb", "--poll", "8", "100"} & set(command.argv)
    assert "LLAMA_ARG_THREADS" not in command.env
    assert "LLAMA_ARG_THREADS_BATCH" not in command.env
