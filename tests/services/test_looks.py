"""When providers are looked at: in rounds, again after a look that failed, and when a request asks for it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.services.house import FakeProvider
from tray_valet.core import events as ev
from tray_valet.core.events_providers import ProviderLost
from tray_valet.core.models import Observation
from tray_valet.services import looks
from tray_valet.services.clock import SystemClock
from tray_valet.services.fleet import Fleet
from tray_valet.services.slot import Slot

FAR_S = 60.0  # no round comes by itself in a test
AGAIN_S = 0.1


class Looked(FakeProvider):
    """Notes when it was looked at; `late_s` is how long it takes to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[float] = []
        self.late_s = 0.0
        self.afresh = 0

    async def observe(self) -> Observation:
        self.looks.append(time.monotonic())
        if self.is_away:
            await asyncio.sleep(self.late_s)
        return await super().observe()

    def look_afresh(self) -> None:
        self.afresh += 1


class Scene:
    def __init__(self) -> None:
        self.provider = Looked()
        self.facts: list[ev.Fact] = []
        self.fleet = Fleet(SystemClock(), self.facts.append, lambda: None)

    @property
    def slot(self) -> Slot:
        return self.fleet.slots["fake"]

    @asynccontextmanager
    async def running(self, interval_s: float = FAR_S) -> AsyncIterator[None]:
        await self.fleet.replace([self.provider])
        task = asyncio.create_task(self.fleet.run(lambda: interval_s))
        try:
            await until(lambda: bool(self.provider.looks))
            await asyncio.sleep(0.05)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(looks, "_AGAIN_S", AGAIN_S)
    return Scene()


async def until(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.01)


async def test_looks_follow_one_that_failed_and_down_is_said_without_two_more_rounds(scene: Scene) -> None:
    async with scene.running():
        scene.provider.is_away = True
        scene.fleet.look_soon()  # the round that finds it
        await until(lambda: scene.slot.is_down, within_s=2.0)
        assert [type(fact) for fact in scene.facts] == [ProviderLost]
        n_looks = len(scene.provider.looks)
        assert n_looks == 4, "one while it was there, three that failed"
        assert scene.provider.afresh == 2, "those that follow do not go by what is remembered"
        await asyncio.sleep(5 * AGAIN_S)
        assert len(scene.provider.looks) == n_looks, "one that is down is left to the rounds"


async def test_one_look_that_fails_changes_nothing(scene: Scene) -> None:
    async with scene.running():
        scene.provider.is_away = True
        scene.fleet.look_soon()
        await until(lambda: scene.slot.failures == 1)
        scene.provider.is_away = False
        await until(lambda: scene.slot.failures == 0)
        await asyncio.sleep(3 * AGAIN_S)
        assert (scene.facts, len(scene.provider.looks)) == ([], 3)


async def test_one_that_is_slow_to_fail_has_as_long_a_pause(scene: Scene) -> None:
    async with scene.running():
        scene.provider.is_away, scene.provider.late_s = True, 0.3
        scene.fleet.look_soon()
        await until(lambda: scene.slot.is_down)
        _, first, second, third = scene.provider.looks
        assert second - first > 0.55
        assert third - second > 0.55


async def test_one_that_was_never_there_has_the_time_of_its_rounds(scene: Scene) -> None:
    scene.provider.is_away = True
    async with scene.running():
        await asyncio.sleep(5 * AGAIN_S)
        assert (len(scene.provider.looks), scene.slot.is_down) == (1, False)


async def test_a_request_without_an_answer_has_its_provider_looked_at_at_once(scene: Scene) -> None:
    async with scene.running():
        await asyncio.sleep(2 * AGAIN_S)
        scene.provider.is_away = True
        scene.fleet.doubt("fake")
        await until(lambda: scene.slot.is_down, within_s=2.0)
        assert len(scene.provider.looks) == 4
        scene.fleet.doubt("fake")
        scene.fleet.doubt("nobody")
        await asyncio.sleep(3 * AGAIN_S)
        assert len(scene.provider.looks) == 4, "that it is down is known"


async def test_however_many_requests_fail_it_is_looked_at_once_a_while_and_none_is_forgotten(
    scene: Scene,
) -> None:
    async with scene.running():
        await asyncio.sleep(2 * AGAIN_S)
        before = len(scene.provider.looks)
        for _ in range(100):
            scene.fleet.doubt("fake")
            await asyncio.sleep(0.005)
        await asyncio.sleep(2 * AGAIN_S)
        times = scene.provider.looks[before:]
        assert len(times) >= 3
        assert min(b - a for a, b in itertools.pairwise(times)) > 0.9 * AGAIN_S
        scene.fleet.doubt("fake")
        await asyncio.sleep(2 * AGAIN_S)
        assert len(scene.provider.looks) > before + len(times)


async def test_a_doubt_during_a_look_that_began_before_has_another_follow(scene: Scene) -> None:
    async with scene.running():
        scene.provider.thawed.clear()
        scene.fleet.look_soon()
        await until(lambda: len(scene.provider.looks) == 2)
        scene.fleet.doubt("fake")  # the look under way may still say what was so before
        scene.provider.thawed.set()
        await until(lambda: len(scene.provider.looks) == 3)


async def test_a_doubt_while_nothing_runs_is_no_stray_task(scene: Scene) -> None:
    await scene.fleet.replace([scene.provider])
    scene.fleet.doubt("fake")
    await asyncio.sleep(0.05)
    assert scene.provider.looks == []
