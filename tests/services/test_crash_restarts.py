"""Crashed runners come back by themselves, what keeps failing is left alone, and both are said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.services.house import FakeProvider, House
from tests.web.fake_valet import FakeClock
from tray_valet.core import events as ev
from tray_valet.core.config import EvictionSettings
from tray_valet.core.errors import LoadFailed, Paused, UnknownModel, ValetError
from tray_valet.core.fact_sentences import sentence
from tray_valet.core.models import ConditionType, LoadRequest, ModelRef
from tray_valet.core.revival import Crash, Patience, TroubleStatus
from tray_valet.core.watchdog import State
from tray_valet.services.revival import Revival

A, B = ModelRef("fake", "a"), ModelRef("fake", "b")
# The refusals' times pass in one test alone, by a clock of its own.
QUICK = Patience(first_wait_s=0.02, longest_wait_s=0.05, first_refusal_s=0.3, longest_refusal_s=0.6)


class Scene:
    """A house whose provider's runners can be made to crash."""

    def __init__(self, tmp_path: Path, patience: Patience) -> None:
        self.provider = FakeProvider()
        self.house = House(tmp_path, self.provider, EvictionSettings())
        self.definition: object = "as it was"
        self.revival = Revival(
            self.house.fleet,
            self.house.clock,
            self.house.facts.append,
            lambda demand: self.house.watchdog.closed_by(demand),
            lambda _ref: self.definition,
            lambda slot, request: self.house.loader.ensure(slot, request),
            patience,
        )
        self.house.loader.revival = self.revival

    @property
    def slot(self):  # type: ignore[no-untyped-def]
        return self.house.fleet.slots["fake"]

    def crash(self, ref: ModelRef = A, reason: str = "its runner was ended by SIGKILL.") -> None:
        self.provider.loaded.pop(ref.model, None)
        self.house.fleet.note_gone(ref)
        self.revival.note_crash(
            Crash(
                ref=ref,
                reason=reason,
                request=LoadRequest(model=ref.model, context_length=8192, ttl_s=60.0),
                log_tail=("last words",),
            )
        )

    async def load(self, ref: ModelRef = A) -> None:
        await self.house.loader.ensure(self.slot, LoadRequest(model=ref.model))

    async def until_loaded(self, ref: ModelRef = A) -> None:
        async with asyncio.timeout(20):
            while self.house.fleet.is_loaded(ref) is None:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.005)

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.005)

    async def until_given_up(self, ref: ModelRef = A) -> None:
        """Crash it as soon as it is ready, until nothing comes any more."""
        async with asyncio.timeout(20):
            while True:
                trouble = self.revival.states().get(ref)
                if trouble is not None and trouble.status is TroubleStatus.FAILED:
                    return
                if self.house.fleet.is_loaded(ref):
                    self.crash(ref)
                await asyncio.sleep(0.005)

    def loads(self) -> int:
        return sum(what == "load" for what, _ in self.provider.calls)


def restarts() -> list[asyncio.Task[Any]]:
    """What waits to start something again."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("restart ")]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path, QUICK)
    async with scene.house.running():
        yield scene
        await scene.revival.close()


async def test_r14_a_crashed_runner_comes_back_as_it_was(scene: Scene) -> None:
    await scene.load()
    scene.crash()
    trouble = scene.revival.states()[A]
    assert trouble.status is TroubleStatus.CRASHED
    assert trouble.attempts == 1
    assert trouble.retry_in_s is not None
    assert "SIGKILL" in trouble.error
    await scene.until_loaded()
    again = scene.provider.requests[-1]
    assert (again.context_length, again.ttl_s) == (8192, 60.0)
    assert scene.revival.states() == {}


async def test_a_crash_in_the_moment_it_is_ready_again_is_not_missed(scene: Scene) -> None:
    await scene.load()
    scene.provider.thawed.clear()  # the look that follows the restart takes its time
    scene.crash()
    await scene.until(lambda: "a" in scene.provider.loaded)
    assert scene.loads() == 2
    scene.crash()
    scene.provider.thawed.set()
    await scene.until_loaded()
    assert scene.loads() == 3
    assert len(scene.house.seen(ev.RunnerCrashed)) == 2


async def test_a_crash_is_said_with_when_it_is_started_again(scene: Scene) -> None:
    await scene.load()
    scene.crash()
    [fact] = scene.house.seen(ev.RunnerCrashed)
    assert sentence(fact).startswith("a ended unexpectedly: its runner was ended by SIGKILL. It is started")


async def test_after_too_many_crashes_it_is_given_up_and_that_is_said_once(scene: Scene) -> None:
    await scene.load()
    scene.crash()
    await scene.until_given_up()
    loads = scene.loads()
    await asyncio.sleep(0.2)
    assert scene.loads() == loads == 6, "the first load and five restarts"
    [fact] = scene.house.seen(ev.RunnerGivenUp)
    assert "6 times" in sentence(fact)
    condition = scene.slot.conditions[ConditionType.GIVEN_UP]
    assert "SIGKILL" in condition.reason
    assert "reset" in condition.reason
    assert scene.revival.states()[A].log_tail == ("last words",)


async def test_requests_for_what_was_given_up_are_answered_at_once_with_number_and_remedy(
    scene: Scene,
) -> None:
    await scene.load()
    scene.crash()
    await scene.until_given_up()
    loads = scene.loads()
    for _ in range(10):
        with pytest.raises(LoadFailed, match="6 times") as caught:
            await scene.load()
        assert caught.value.remedy
        assert caught.value.log_tail == ("last words",)
    assert scene.loads() == loads
    assert len(scene.house.seen(ev.LoadRefused)) == 0


@pytest.mark.parametrize("how", ["reset", "manual", "settings"])
async def test_what_was_given_up_starts_anew_when_somebody_sees_to_it(scene: Scene, how: str) -> None:
    await scene.load()
    scene.crash()
    await scene.until_given_up()
    if how == "reset":
        scene.revival.reset(A)
        assert scene.revival.states() == {}
    if how == "settings":
        scene.definition = "another"
    if how == "manual":
        await scene.house.loader.ensure(scene.slot, LoadRequest(model="a"), is_manual=True)
    else:
        await scene.load()
    assert scene.house.fleet.is_loaded(A)
    assert ConditionType.GIVEN_UP not in scene.slot.conditions
    scene.crash()
    assert scene.revival.states()[A].attempts == 1, "it begins to count anew"


async def test_a_request_in_between_waits_for_the_restart(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Patience(first_wait_s=0.15))
    async with scene.house.running():
        await scene.load()
        scene.crash()
        await asyncio.gather(*(scene.load() for _ in range(20)))
        assert scene.loads() == 2, "all of them share the one start"
        assert scene.provider.requests[-1].context_length == 8192
        await scene.revival.close()


async def test_a_crash_of_one_leaves_the_others_alone(scene: Scene) -> None:
    await scene.load()
    await scene.load(B)
    scene.crash()
    await scene.load(B)
    assert scene.provider.calls.count(("load", "b")) == 1
    await scene.until_loaded()


async def test_nothing_is_started_while_the_gate_is_closed(scene: Scene) -> None:
    await scene.load()
    hold = scene.house.game()
    await scene.house.reaches(State.PAUSED)
    loads = scene.loads()
    scene.crash(B)  # one that went before the evictor came to it
    await asyncio.sleep(0.3)
    assert scene.loads() == loads
    assert B in scene.revival.states()
    scene.house.holds.end(hold.id)
    await scene.until_loaded(B)
    await scene.until_loaded(A)


async def test_a_request_that_waits_for_a_restart_is_refused_when_a_game_starts(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Patience(first_wait_s=30.0))
    async with scene.house.running():
        await scene.load()
        scene.crash()
        waiting = asyncio.create_task(scene.load())
        await asyncio.sleep(0.05)
        scene.house.game()
        with pytest.raises(Paused):
            await waiting
        assert scene.loads() == 1
        await scene.revival.close()


async def test_what_is_unloaded_on_purpose_stays_away(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Patience(first_wait_s=3600.0))
    async with scene.house.running():
        await scene.load()
        scene.crash()
        assert [task.get_name() for task in restarts()] == ["restart fake/a"]
        waiting = asyncio.create_task(scene.load())
        await asyncio.sleep(0.02)
        await scene.house.loader.unload(scene.slot, "a")
        with pytest.raises(LoadFailed, match="unloaded"):
            await waiting
        await scene.until(lambda: restarts() == [])  # nothing is left that would start it
        assert scene.loads() == 1
        assert scene.revival.states() == {} or scene.revival.states()[A].retry_in_s is None
        await scene.load()
        assert scene.loads() == 2, "and comes back when it is asked for"


async def test_a_restart_that_fails_is_tried_again_later(scene: Scene) -> None:
    await scene.load()
    scene.provider.load_errors = [LoadFailed("a could not be loaded: no memory.")]
    scene.crash()
    await scene.until_loaded()
    assert scene.loads() == 3
    facts = scene.house.seen(ev.RunnerCrashed)
    assert len(facts) == 2
    assert "could not be started again: no memory." in sentence(facts[1])


@pytest.mark.parametrize("error", [UnknownModel("no a")])
async def test_a_restart_that_cannot_succeed_is_not_tried_again(scene: Scene, error: ValetError) -> None:
    await scene.load()
    scene.provider.load_errors = [error]
    scene.crash()
    await scene.until(lambda: scene.loads() == 2 and scene.revival.states() == {})
    await asyncio.sleep(0.2)
    assert scene.loads() == 2
    assert scene.revival.states() == {}
    assert restarts() == []


async def test_a_load_that_fails_is_not_started_over_and_over(scene: Scene) -> None:
    clock = scene.revival._clock = FakeClock()
    scene.provider.load_errors = [LoadFailed("a could not be loaded: bad magic.") for _ in range(9)]
    for _ in range(30):
        with pytest.raises(LoadFailed):
            await scene.load()
    assert scene.loads() == 3
    trouble = scene.revival.states()[A]
    assert (trouble.status, trouble.attempts, trouble.retry_in_s) == (TroubleStatus.FAILED, 3, None)
    assert "3 times in a row: bad magic." in trouble.error
    clock.now_s += 0.31
    with pytest.raises(LoadFailed):
        await scene.load()
    assert scene.loads() == 4, "one new try after the wait"
    with pytest.raises(LoadFailed, match="4 times"):
        await scene.load()
    assert scene.loads() == 4


async def test_a_load_that_works_after_all_ends_the_trouble(scene: Scene) -> None:
    scene.provider.load_errors = [LoadFailed("bad"), LoadFailed("bad")]
    for _ in range(2):
        with pytest.raises(LoadFailed):
            await scene.load()
    await scene.load()
    assert scene.revival.states() == {}
