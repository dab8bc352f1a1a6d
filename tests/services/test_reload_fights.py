"""Programs that load past the router in a pause: real processes with real connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.services.house import FakeProvider, House
from tray_valet.adapters.processes import process_table
from tray_valet.core import events as ev
from tray_valet.core.config import EvictionSettings
from tray_valet.core.models import ConditionType
from tray_valet.core.watchdog import State

QUICK = EvictionSettings(drain_seconds=0.2, kill_after_seconds=40, confirm_seconds=0.5)
CALLER = """
import socket, sys, time
line = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("up", flush=True)
sys.stdin.read()
"""


class ListedProvider(FakeProvider):
    """A provider whose address is a real socket."""

    def __init__(self, port: int) -> None:
        super().__init__("ollama")
        self.endpoint = f"http://127.0.0.1:{port}"  # type: ignore[misc]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def provider(server: socket.socket) -> ListedProvider:
    return ListedProvider(server.getsockname()[1])


@pytest.fixture
def house(tmp_path: Path, provider: ListedProvider) -> House:
    house = House(tmp_path, provider, QUICK)
    real = process_table()
    for look in ("clients_of", "describe", "descendants"):
        setattr(house.table, look, getattr(real, look))
    # This test listens itself, and its callers are its children: a server's own are never suspected.
    house.fights._router_url = lambda: "http://127.0.0.1:8766"
    return house


Call = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def call(tmp_path: Path, server: socket.socket) -> Iterator[Call]:
    """Start a program of that name that connects to the provider and stays."""
    children: list[subprocess.Popen[str]] = []

    def call(name: str) -> subprocess.Popen[str]:
        script = tmp_path / f"{name}.py"
        script.write_text(CALLER)
        child = subprocess.Popen(
            [sys.executable, str(script), str(server.getsockname()[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        return child

    yield call
    for child in children:
        child.kill()
        child.communicate()


@contextlib.asynccontextmanager
async def paused(house: House) -> AsyncIterator[None]:
    async with house.running():
        watching = asyncio.create_task(house.fights.run())
        house.game()
        await house.reaches(State.PAUSED)
        try:
            yield
        finally:
            watching.cancel()


async def watched(house: House) -> None:
    """Wait until the watch itself has seen somebody, and has taken it down."""
    async with asyncio.timeout(30):
        while not house.fights._visitors.get("ollama"):  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.02)


async def reload_seen(house: House, times: int) -> ev.ModelReloadedDuringPause:
    async with asyncio.timeout(30):
        while len(house.seen(ev.ModelReloadedDuringPause)) < times:  # noqa: ASYNC110  facts are a list here
            await asyncio.sleep(0.02)
    fact = house.seen(ev.ModelReloadedDuringPause)[times - 1]
    assert isinstance(fact, ev.ModelReloadedDuringPause)
    return fact


async def test_the_program_that_is_connected_is_named_with_what_to_do(
    house: House, provider: ListedProvider, call: Call
) -> None:
    async with paused(house):
        child = await asyncio.to_thread(call, "webui")
        provider.put("b")
        fact = await reload_seen(house, 1)
        assert (fact.client, fact.pid, fact.times, fact.out_in_s) == ("webui", child.pid, 1, 0.0)
        reason = house.fleet.slots["ollama"].conditions[ConditionType.RELOADED].reason
        assert f"“webui” (process {child.pid}) loads b" in reason
        assert "Point “webui” at http://127.0.0.1:8766 instead." in reason
        await house.reaches(State.PAUSED)
        assert provider.loaded == {}


async def test_one_that_has_hung_up_before_its_model_is_seen_is_remembered(
    house: House, provider: ListedProvider, call: Call
) -> None:
    async with paused(house):
        child = await asyncio.to_thread(call, "nightly")
        await watched(house)
        await asyncio.to_thread(end, child)
        provider.put("b")
        assert (await reload_seen(house, 1)).client == "nightly"


async def test_nobody_there_is_said_as_nobody_known(house: House, provider: ListedProvider) -> None:
    async with paused(house):
        provider.put("b")
        fact = await reload_seen(house, 1)
        assert (fact.client, fact.pid) == ("", 0)
        reason = house.fleet.slots["ollama"].conditions[ConditionType.RELOADED].reason
        assert reason.startswith("A program loads b here during a pause, past the valet.")
        assert "http://127.0.0.1:8766" in reason


async def test_the_one_that_came_is_named_and_not_the_one_that_was_idle_all_along(
    house: House, provider: ListedProvider, call: Call
) -> None:
    await asyncio.to_thread(call, "idle")
    provider.put("a")
    unload = provider.unload

    async def unload_later(model: str) -> None:
        await watched(house)
        await unload(model)

    provider.unload = unload_later  # type: ignore[method-assign]
    async with paused(house):  # the idle one was there before the provider was clear
        await asyncio.to_thread(call, "busy")
        provider.put("b")
        assert (await reload_seen(house, 1)).client == "busy"


async def test_a_server_and_its_own_children_are_never_named(
    house: House, provider: ListedProvider, call: Call
) -> None:
    async with paused(house):
        child = await asyncio.to_thread(call, "runner")
        found = house.table.describe(child.pid)
        assert found is not None
        house.table.listening_on = lambda port: found.identity  # type: ignore[method-assign]
        provider.put("b")
        assert (await reload_seen(house, 1)).client == ""


async def test_a_client_that_reloads_in_a_loop_is_evicted_at_a_pace_and_the_game_ends_as_it_began(
    house: House, provider: ListedProvider, call: Call
) -> None:
    provider.put("a", context_length=8192)
    async with paused(house):
        await asyncio.to_thread(call, "webui")
        loop = asyncio.get_running_loop()
        end_s, third_s = loop.time() + 60.0, 0.0
        while loop.time() < (third_s + 2.5 if third_s else end_s):
            if not third_s and len(house.seen(ev.ModelReloadedDuringPause)) == 3:
                third_s = loop.time()
            if "b" not in provider.loaded:
                provider.put("b")
            await asyncio.sleep(0.05)
        unloads = [c for c in provider.calls if c == ("unload", "b")]
        assert len(unloads) == 2, "at once, then 5 s later; the third has 10 s left"
        facts = [
            f for f in house.seen(ev.ModelReloadedDuringPause) if isinstance(f, ev.ModelReloadedDuringPause)
        ]
        assert [f.times for f in facts] == [1, 2, 3]
        assert facts[0].out_in_s == 0
        assert 0 < facts[1].out_in_s <= 5 < facts[2].out_in_s <= 10
        house.holds.end("game:hades")
        await house.reaches(State.RUNNING)
        assert provider.loaded["a"].context_length == 8192
        assert [r.model for r in provider.requests] == ["a"], "only what was there before the game"
        assert ConditionType.RELOADED not in house.fleet.slots["ollama"].conditions


async def test_a_look_that_ends_after_the_pause_says_nothing_about_it(
    house: House, provider: ListedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with paused(house):
        goes_on = asyncio.Event()
        look = house.fights._look

        async def slow_look() -> None:
            await goes_on.wait()
            await look()

        monkeypatch.setattr(house.fights, "_look", slow_look)
        provider.put("b")
        await asyncio.sleep(0.5)
        house.holds.end("game:hades")
        await house.reaches(State.RUNNING)
        goes_on.set()
        await asyncio.sleep(0.3)
        assert house.seen(ev.ModelReloadedDuringPause) == []
        assert ConditionType.RELOADED not in house.fleet.slots["ollama"].conditions


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
