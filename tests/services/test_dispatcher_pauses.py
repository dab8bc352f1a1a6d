"""Requests and pauses: arriving, queued, loading and in flight when a game starts, as each route says."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.services.house import FakeProvider, House
from tests.services.test_dispatcher import Client, route, served, until, with_router, with_routes
from tray_valet.core.commands import Wish
from tray_valet.core.config import EvictionSettings
from tray_valet.core.config_providers import WhenPaused
from tray_valet.core.errors import Paused, QueueFull, UnknownModel, ValetError
from tray_valet.core.models import ModelRef
from tray_valet.core.processes import ProcessIdentity
from tray_valet.core.watchdog import State

QUICK = EvictionSettings(drain_seconds=0.05, kill_after_seconds=0.3, confirm_seconds=0.5)
A = ModelRef("fake", "a")
SEED = random.Random().randrange(10**6)  # printed where a test uses it


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def house(tmp_path: Path, provider: FakeProvider) -> House:
    return House(tmp_path, provider, QUICK)


@pytest.fixture
def cloud(house: House) -> FakeProvider:
    """A second provider that takes nothing of this machine."""
    second = FakeProvider("cloud", ("x",), ProcessIdentity(777, 1))
    second.is_local = second.can_unload = False
    house.providers.append(second)
    return second


def with_policies(house: House, **values: Any) -> None:
    """Three routes over the same candidates."""
    with_routes(
        house,
        next=route("fake/a", "cloud/x", when_paused=WhenPaused.NEXT),
        wait=route("fake/a", "cloud/x", when_paused=WhenPaused.WAIT, **values),
        refuse=route("fake/a", "cloud/x", when_paused=WhenPaused.REFUSE),
    )


# -- what each route says --------------------------------------------------------------------------------


async def test_next_goes_to_a_candidate_that_needs_no_gpu_here(house: House, cloud: FakeProvider) -> None:
    with_policies(house)
    async with house.running():
        house.game()
        assert await served(house, "next") == ("cloud/x", "fallback: paused")
        await house.reaches(State.PAUSED)
        assert await served(house, "next") == ("cloud/x", "fallback: paused")


async def test_refuse_refuses_at_once_with_the_cause_and_a_time(house: House, cloud: FakeProvider) -> None:
    with_policies(house)
    async with house.running():
        house.game()
        with pytest.raises(Paused, match="Hades") as told:
            await served(house, "refuse")
        assert told.value.retry_after_s >= 5


async def test_wait_waits_for_the_end_of_the_pause(house: House, cloud: FakeProvider) -> None:
    with_policies(house)
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        client = Client(house, Wish(model="wait"))
        await asyncio.sleep(0)  # it waits from here on
        await asyncio.sleep(0.1)
        assert client.lease is None
        house.holds.end(hold.id)
        assert await client.finish() == "fake/a"
        assert client.lease.queue_s >= 0.1


async def test_wait_is_bounded_and_then_refuses(house: House, cloud: FakeProvider) -> None:
    with_policies(house, wait_seconds=0.1)
    async with house.running():
        house.game()
        with pytest.raises(Paused, match="Hades"):
            await served(house, "wait")


@pytest.mark.parametrize("policy", [WhenPaused.NEXT, WhenPaused.REFUSE])
async def test_a_model_without_a_route_is_refused(house: House, policy: WhenPaused) -> None:
    with_router(house, when_paused=policy)
    async with house.running():
        house.game()
        with pytest.raises(Paused):
            await served(house, "a")


async def test_a_model_without_a_route_may_wait(house: House) -> None:
    with_router(house, when_paused=WhenPaused.WAIT)
    async with house.running():
        hold = house.game()
        client = Client(house, Wish(model="a"))
        await house.reaches(State.PAUSED)
        house.holds.end(hold.id)
        assert await client.finish() == "fake/a"


async def test_a_model_on_the_cpu_goes_on_serving_during_a_game(house: House, provider: FakeProvider) -> None:
    provider.cpu_only = frozenset({"b"})
    provider.put("b")
    with_routes(house, alias=route("fake/a", "fake/b"))
    async with house.running():
        house.game()
        await house.reaches(State.PAUSED)
        assert await served(house, "b") == ("fake/b", "model")
        assert await served(house, "alias") == ("fake/b", "fallback: paused")


async def test_a_pause_is_told_before_the_failure_of_a_fallback(house: House, cloud: FakeProvider) -> None:
    with_policies(house)
    async with house.running():
        house.game()
        with pytest.raises(Paused):
            async with house.dispatcher.admit(
                Wish(model="next"), {ModelRef("cloud", "x"): ValetError("it failed")}
            ):
                pass


# -- who waits at the gate ------------------------------------------------------------------------------


def waits_for_a(house: House, **values: Any) -> None:
    with_routes(house, patient=route("fake/a", when_paused=WhenPaused.WAIT, **values))


def waiting(house: House, ref: ModelRef = A) -> int:
    return sum(queue.waiting for queue in house.dispatcher.queues() if queue.ref == ref)


def rejected(house: House) -> int:
    return sum(queue.rejected_total for queue in house.dispatcher.queues())


async def at_the_gate(house: House, count: int, model: str = "patient") -> list[Client]:
    """So many that wait at the gate, in this order."""
    before = waiting(house)
    clients = [Client(house, Wish(model=model)) for _ in range(count)]
    await until(lambda: waiting(house) == before + count)
    return clients


@asynccontextmanager
async def full_gate(
    house: House, provider: FakeProvider, most: int
) -> AsyncIterator[tuple[str, list[Client]]]:
    """A game runs, and as many wait for its end as may: the hold's id, and who waits."""
    with_router(house, max_queue_size_per_model=most)
    waits_for_a(house)
    provider.slots = 1
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        yield hold.id, await at_the_gate(house, most)


async def all_served(clients: list[Client]) -> list[str]:
    """What each of them was given, once they may end."""
    for client in clients:
        client.let_go.set()
    return await asyncio.gather(*(client.task for client in clients))


async def test_one_too_many_at_the_gate_is_refused_on_arrival_and_the_others_are_served(
    house: House, provider: FakeProvider
) -> None:
    async with full_gate(house, provider, 3) as (hold_id, held):
        for number in (1, 2):
            with pytest.raises(QueueFull, match="3 requests wait for fake/a already") as told:
                async with asyncio.timeout(0.5):
                    await served(house, "patient")
            assert 1 <= told.value.retry_after_s <= 300
            assert "router.max_queue_size_per_model" in told.value.remedy
            assert (waiting(house), rejected(house)) == (3, number)
        house.holds.end(hold_id)
        assert await all_served(held) == ["fake/a"] * 3
        assert (waiting(house), rejected(house)) == (0, 2)


async def test_a_route_that_waits_does_not_go_elsewhere_because_the_gate_is_full(
    house: House, cloud: FakeProvider
) -> None:
    with_router(house, max_queue_size_per_model=1)
    with_policies(house)
    async with house.running():
        hold = house.game()
        (client,) = await at_the_gate(house, 1, "wait")
        with pytest.raises(QueueFull):
            await served(house, "wait")
        assert await served(house, "next") == ("cloud/x", "fallback: paused")
        house.holds.end(hold.id)
        assert await client.finish() == "fake/a"


async def test_who_was_let_in_at_the_gate_passes_a_full_line_and_who_comes_now_does_not(
    house: House, provider: FakeProvider
) -> None:
    async with full_gate(house, provider, 5) as (hold_id, held):
        with_router(house, max_queue_size_per_model=2)
        house.holds.end(hold_id)
        await until(lambda: any(client.lease for client in held))
        assert waiting(house) == 4, "longer than the limit, by those who were let in"
        for model in ("patient", "a"):
            with pytest.raises(QueueFull, match="4 requests wait"):
                await served(house, model)
        assert await all_served(held) == ["fake/a"] * 5
        assert (waiting(house), rejected(house)) == (0, 2)
        assert await served(house, "a") == ("fake/a", "model")


async def test_who_stood_in_line_when_the_pause_began_keeps_its_place_at_the_gate_and_after(
    house: House, provider: FakeProvider
) -> None:
    with_router(house, max_queue_size_per_model=4)
    waits_for_a(house)
    provider.slots = 1
    async with house.running():
        running, *queued = [Client(house, Wish(model="patient")) for _ in range(5)]
        await until(lambda: running.lease is not None and waiting(house) == 4)
        with_router(house, max_queue_size_per_model=1)
        hold = house.game()
        house.dispatcher.gate_changed()
        await until(lambda: waiting(house) == 4)
        with pytest.raises(QueueFull, match="4 requests wait"):
            await served(house, "patient")
        await running.finish()
        await house.reaches(State.PAUSED)
        assert waiting(house) == 4
        house.holds.end(hold.id)
        for client in queued:
            client.let_go.set()
        assert await asyncio.gather(*(client.task for client in queued)) == ["fake/a"] * 4
        assert (waiting(house), rejected(house)) == (0, 1)


async def test_who_waits_at_the_gate_makes_the_model_neither_busy_nor_wanted(
    house: House, provider: FakeProvider
) -> None:
    waits_for_a(house)
    async with house.running():
        hold = house.game()
        await house.reaches(State.PAUSED)
        clients = await at_the_gate(house, 3)
        assert (house.dispatcher.busy(A), house.dispatcher.is_wanted(A)) == (0, False)
        (queue,) = house.dispatcher.queues()
        assert (queue.in_flight, queue.admitted_total) == (0, 0)
        house.holds.end(hold.id)
        for client in clients:
            await client.finish()
        (queue,) = house.dispatcher.queues()
        assert (queue.waiting, queue.admitted_total, queue.finished_total) == (0, 3, 3)


async def test_who_leaves_the_gate_is_counted_no_longer(house: House) -> None:
    waits_for_a(house)
    async with house.running():
        house.game()
        await house.reaches(State.PAUSED)
        gone, *others = await at_the_gate(house, 3)
        gone.task.cancel()
        await until(lambda: waiting(house) == 2)
        house.settings = msgspec.structs.replace(house.settings, routes={})
        results = await asyncio.gather(*(client.task for client in others), return_exceptions=True)
        assert {type(result) for result in results} == {UnknownModel}
        assert waiting(house) == 0


async def test_whose_wait_is_over_or_not_wanted_any_more_is_counted_no_longer(house: House) -> None:
    waits_for_a(house, wait_seconds=0.2)
    async with house.running():
        house.game()
        await house.reaches(State.PAUSED)
        for is_changed in (False, True):
            (client,) = await at_the_gate(house, 1)
            if is_changed:
                with_routes(house, patient=route("fake/a", when_paused=WhenPaused.REFUSE))
            with pytest.raises(Paused):
                await client.task
            assert (waiting(house), rejected(house)) == (0, 0)


async def test_a_provider_that_is_taken_away_leaves_no_line_of_those_at_the_gate(house: House) -> None:
    with_router(house, when_paused=WhenPaused.WAIT)
    async with house.running():
        house.game()
        await house.reaches(State.PAUSED)
        clients = await at_the_gate(house, 2, "a")
        await house.fleet.replace([])
        results = await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
        assert all(isinstance(result, ValetError) for result in results)
        assert house.dispatcher.queues() == ()


async def test_names_at_a_provider_that_never_answered_grow_nothing_at_the_gate(house: House) -> None:
    with_router(house, when_paused=WhenPaused.WAIT)
    second = FakeProvider("other", ("x",), ProcessIdentity(777, 1))
    second.is_away = True
    house.providers.append(second)
    async with house.running():
        await until(lambda: house.fleet.slots["other"].is_down)
        house.game()
        clients = [Client(house, Wish(model=f"other/m{n}")) for n in range(50)]
        await until(lambda: len(house.dispatcher.queues()) == 50)
        for client in clients:
            client.task.cancel()
        await until(lambda: house.dispatcher.queues() == ())


# -- every moment ----------------------------------------------------------------------------------------


async def outcomes(house: House, name: str, count: int) -> list[Client]:
    """So many requests at once for a model with one place: one runs, the others queue."""
    clients = [Client(house, Wish(model=name)) for _ in range(count)]
    await until(lambda: any(client.lease for client in clients))
    return clients


@pytest.mark.parametrize(
    ("name", "outcome"), [("next", "cloud/x"), ("refuse", Paused), ("wait", "fake/a"), ("a", Paused)]
)
async def test_a_request_that_queues_when_a_game_starts_does_as_its_route_says(
    house: House, provider: FakeProvider, cloud: FakeProvider, name: str, outcome: Any
) -> None:
    with_policies(house)
    provider.slots = 1
    async with house.running():
        running, *queued = await outcomes(house, name, 6)
        hold = house.game()
        house.dispatcher.gate_changed()
        await running.finish()  # in time
        await house.reaches(State.PAUSED)
        house.holds.end(hold.id)
        for client in queued:
            client.let_go.set()
        results = await asyncio.gather(*(client.task for client in queued), return_exceptions=True)
        found = {type(result) if isinstance(result, Exception) else result for result in results}
        assert found == {outcome}


@pytest.mark.parametrize(("name", "outcome"), [("next", "cloud/x"), ("refuse", Paused), ("wait", "fake/a")])
async def test_a_request_whose_model_loads_when_a_game_starts_does_as_its_route_says(
    house: House, provider: FakeProvider, cloud: FakeProvider, name: str, outcome: Any
) -> None:
    with_policies(house)
    provider.load_s = 30
    async with house.running():
        clients = [Client(house, Wish(model=name)) for _ in range(5)]
        await until(lambda: ("load", "a") in provider.calls)
        hold = house.game()
        await house.reaches(State.PAUSED)
        assert provider.loaded == {}
        provider.load_s = 0.0
        house.holds.end(hold.id)
        for client in clients:
            client.let_go.set()
        results = await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
        found = {type(result) if isinstance(result, Exception) else result for result in results}
        assert found == {outcome}


async def test_a_revoked_request_is_admitted_anew_as_its_route_says(
    house: House, cloud: FakeProvider
) -> None:
    with_policies(house)
    async with house.running():
        client = Client(house, Wish(model="next"))
        await until(lambda: client.lease is not None)
        client.lease.when_revoked(lambda _: client.let_go.set())
        house.game()
        assert await client.task == "fake/a"
        assert isinstance(client.lease.revoked_by, Paused)
        assert await served(house, "next") == ("cloud/x", "fallback: paused")


async def test_nothing_is_loaded_in_the_moment_a_pause_begins(house: House, provider: FakeProvider) -> None:
    async with house.running():
        for turns in range(6):
            asked = asyncio.create_task(served(house, "a"))
            for _ in range(turns):
                await asyncio.sleep(0)
            loads, was_served = provider.calls.count(("load", "a")), asked.done()
            hold = house.game()
            (result,) = await asyncio.gather(asked, return_exceptions=True)
            assert was_served or isinstance(result, Paused)
            assert provider.calls.count(("load", "a")) == loads
            await house.reaches(State.PAUSED)
            house.holds.end(hold.id)
            await house.reaches(State.RUNNING)


# -- many at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [500, 3])
async def test_200_requests_through_pauses_and_resumes_each_end_in_exactly_one_way(
    house: House, provider: FakeProvider, cloud: FakeProvider, most: int
) -> None:
    print("seed", SEED)
    chance = random.Random(SEED)
    with_router(house, max_queue_size_per_model=most)
    with_policies(house)
    provider.slots, provider.load_s = 4, 0.02
    ends: Counter[str] = Counter()

    async def ask(name: str) -> None:
        try:
            async with house.dispatcher.admit(Wish(model=name, client=chance.choice("pq"))) as lease:
                revoked = asyncio.Event()
                lease.when_revoked(lambda _: revoked.set())
                try:
                    async with asyncio.timeout(chance.uniform(0.001, 0.02)):
                        await revoked.wait()
                except TimeoutError:
                    ends[str(lease.ref)] += 1
                else:
                    ends["revoked"] += 1
        except Paused:
            ends["paused"] += 1
        except QueueFull:
            ends["full"] += 1
        except asyncio.CancelledError:
            ends["left"] += 1

    async with house.running():
        tasks = []
        for number in range(200):
            tasks.append(asyncio.create_task(ask(chance.choice(["next", "wait", "refuse"]))))
            if number % 50 == 20:
                hold = house.game()
            if number % 50 == 45:
                house.holds.end(hold.id)
            if chance.random() < 0.1:
                chance.choice(tasks).cancel()
            await asyncio.sleep(chance.uniform(0, 0.004))
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks, return_exceptions=True)
        never_ran = sum(task.cancelled() for task in tasks)
        assert sum(ends.values()) + never_ran == 200
        assert ends["full"] == 0 or most < 200, "nobody is refused for the length while there is room"
        assert rejected(house) >= ends["full"]
        assert house.leases.total == 0
        assert all((q.waiting, q.in_flight) == (0, 0) for q in house.dispatcher.queues())
        await house.reaches(State.RUNNING)
        assert await served(house, "refuse") == ("fake/a", "alias")


async def test_no_place_is_lost_whoever_leaves_whenever(house: House, provider: FakeProvider) -> None:
    print("seed", SEED)
    chance = random.Random(SEED)
    provider.slots = 3
    running = 0

    async def ask() -> None:
        nonlocal running
        context_length = chance.choice([None, None, None, 8192])
        wish = Wish(model=chance.choice("ab"), client=chance.choice("pqr"), context_length=context_length)
        async with house.dispatcher.admit(wish):
            running += 1
            try:
                for _ in range(chance.randrange(5)):
                    await asyncio.sleep(0)
            finally:
                running -= 1

    async with house.running():
        tasks: list[asyncio.Task[None]] = []
        for _ in range(1500):
            tasks.append(asyncio.create_task(ask()))
            if chance.random() < 0.4:
                chance.choice(tasks[-20:]).cancel()
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            if chance.random() < 0.01:
                provider.loaded.pop(chance.choice("ab"), None)
                await house.fleet.refresh()
        async with asyncio.timeout(20):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [r for r in results if isinstance(r, Exception)]
        assert (running, house.leases.total) == (0, 0)
        assert all((q.waiting, q.in_flight) == (0, 0) for q in house.dispatcher.queues())
        clients = [Client(house, Wish(model="a")) for _ in range(3)]
        await until(lambda: all(client.lease for client in clients))
        for client in clients:
            await client.finish()


async def test_several_wait_for_idle_and_all_are_told(house: House) -> None:
    async with house.running():
        clients = [Client(house, Wish(model="a")) for _ in range(3)]
        await until(lambda: all(client.lease for client in clients))
        waiting = [asyncio.create_task(house.leases.wait_idle(A, 5)) for _ in range(10)]
        assert not await house.leases.wait_idle(A, 0.01)
        for client in clients:
            await client.finish()
        assert await asyncio.gather(*waiting) == [True] * 10


async def test_settings_may_change_under_way(house: House) -> None:
    async with house.running():
        await served(house, "a")
        with_routes(house, a=route("fake/b"))
        assert await served(house, "a") == ("fake/b", "alias")
        house.settings = msgspec.structs.replace(house.settings, routes={})
        assert await served(house, "a") == ("fake/a", "model")
