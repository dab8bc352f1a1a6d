"""Admissions outside of pauses: candidates, pools, loads, places and contexts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.services.house import FakeProvider, House
from tray_valet.core.commands import Wish
from tray_valet.core.config import EvictionSettings, RouterSettings
from tray_valet.core.config_providers import CandidateSettings, PoolSettings, RouteSettings
from tray_valet.core.dialects import CHAT, OLLAMA_CHAT, OLLAMA_PATHS, RERANK
from tray_valet.core.errors import (
    LoadFailed,
    NotSupported,
    ProviderUnreachable,
    QueueFull,
    TimedOut,
    UnknownModel,
    UpstreamFailed,
    VramExhausted,
)
from tray_valet.core.models import LoadedModel, LoadRequest, ModelRef, ProviderKind
from tray_valet.core.processes import ProcessIdentity
from tray_valet.services.catalog import Catalog

QUICK = EvictionSettings(drain_seconds=0.2, kill_after_seconds=0.3, confirm_seconds=0.5)
A = ModelRef("fake", "a")


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def other(house: House) -> FakeProvider:
    """A second provider, with models of its own and one that the first has too."""
    second = FakeProvider("other", ("x", "a"), ProcessIdentity(777, 1))
    house.providers.append(second)
    return second


@pytest.fixture
def house(tmp_path: Path, provider: FakeProvider) -> House:
    return House(tmp_path, provider, QUICK)


def with_routes(house: House, **routes: RouteSettings) -> None:
    house.settings = msgspec.structs.replace(house.settings, routes=routes)


def with_router(house: House, **values: Any) -> None:
    house.settings = msgspec.structs.replace(house.settings, router=RouterSettings(**values))


def route(*candidates: str, **values: Any) -> RouteSettings:
    """A route of `provider/model` …"""
    parts = (candidate.split("/", 1) for candidate in candidates)
    return RouteSettings(
        candidates=tuple(CandidateSettings(provider=provider, model=model) for provider, model in parts),
        **values,
    )


async def served(house: House, model: str, **wish: Any) -> tuple[str, str]:
    """Who gets a request, and why."""
    async with asyncio.timeout(30), house.dispatcher.admit(Wish(model=model, **wish)) as lease:
        return str(lease.ref), lease.reason


async def until(is_so: Callable[[], bool], within_s: float = 30.0) -> None:
    end_s = asyncio.get_running_loop().time() + within_s
    while not is_so():
        assert asyncio.get_running_loop().time() < end_s
        await asyncio.sleep(0.01)


class Client:
    """Holds a request until told to let go."""

    def __init__(self, house: House, wish: Wish) -> None:
        self.let_go = asyncio.Event()
        self.lease: Any = None
        self.task = asyncio.create_task(self._run(house, wish))

    async def _run(self, house: House, wish: Wish) -> str:
        async with house.dispatcher.admit(wish) as lease:
            self.lease = lease
            await self.let_go.wait()
            return str(lease.ref)

    async def finish(self) -> str:
        self.let_go.set()
        async with asyncio.timeout(30):
            return await self.task


# -- names and routes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ("a", ("fake/a", "model")),
        ("fake/b", ("fake/b", "model")),
        ("other/a", ("other/a", "model")),
        ("x", ("other/x", "model")),
        ("alias", ("fake/a", "alias")),
        ("half", ("other/x", "fallback: fake has no none")),
    ],
)
async def test_a_name_means_one_model(
    house: House, other: FakeProvider, asked: str, where: tuple[str, str]
) -> None:
    with_routes(house, alias=route("fake/a", "other/x"), half=route("fake/none", "nobody/a", "other/x"))
    async with house.running():
        assert await served(house, asked) == where
        assert await served(house, asked) == where, "the second time without a load"


async def test_an_alias_without_a_candidate_that_exists_says_so(house: House) -> None:
    with_routes(house, lost=route("nobody/a", "fake/none"))
    async with house.running():
        with pytest.raises(UnknownModel, match="“lost” has no candidate"):
            await served(house, "lost")


async def test_a_model_that_was_pulled_a_moment_ago_is_found(house: House, provider: FakeProvider) -> None:
    async with house.running():
        with pytest.raises(UnknownModel):
            await served(house, "new")
        provider.models = (*provider.models, "new")
        assert await served(house, "new") == ("fake/new", "model")


async def test_c12_another_tag_is_another_model(house: House, provider: FakeProvider) -> None:
    provider.models = ("llama3:70b",)
    async with house.running():
        for name in ("llama3", "llama3:8b", "llama3:latest"):
            with pytest.raises(UnknownModel):
                await served(house, name)


async def test_a_model_may_disappear_between_requests(house: House, provider: FakeProvider) -> None:
    async with house.running():
        await served(house, "b")
        provider.models, provider.loaded = ("a",), {}
        await house.fleet.refresh()
        await house.fleet.list_models(0.0)
        with pytest.raises(UnknownModel):
            await served(house, "b")
        assert [queue.ref.model for queue in house.dispatcher.queues()] == []


async def test_what_a_route_changes_comes_with_the_lease(house: House, provider: FakeProvider) -> None:
    changed = RouteSettings(
        candidates=(CandidateSettings(provider="fake", model="a", set={"top_k": 1}, strip=("seed",)),),
        num_ctx=8192,
        keep_alive="5m",
    )
    with_routes(house, changed=changed, plain=route("fake/a"))
    async with house.running(), house.dispatcher.admit(Wish(model="changed")) as lease:
        assert lease.overrides is not None
        assert (lease.overrides.set, lease.overrides.strip) == ({"top_k": 1}, ("seed",))
        assert (lease.overrides.context_length, lease.overrides.keep_alive_s) == (8192, 300.0)
        assert provider.loaded["a"].context_length == 8192
        async with house.dispatcher.admit(Wish(model="plain")) as plain:
            assert plain.overrides is None
        assert provider.touches[-1] == ("a", None)
    assert provider.touches[-1] == ("a", 300.0)


# -- candidates that cannot serve ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (LoadFailed("broken file"), "fallback: a could not be loaded"),
        (VramExhausted("no", required_bytes=2, available_bytes=1), "fallback: a did not fit"),
        (ProviderUnreachable("gone"), "fallback: fake is down"),
    ],
)
async def test_a_candidate_that_cannot_be_loaded_gives_way_to_the_next(
    house: House, provider: FakeProvider, other: FakeProvider, error: LoadFailed, why: str
) -> None:
    with_routes(house, alias=route("fake/a", "other/x"))
    async with house.running():
        provider.load_errors = [error]
        assert await served(house, "alias") == ("other/x", why)
        assert await served(house, "alias") == ("fake/a", "alias"), "it is tried again by the next request"


async def test_the_last_failure_is_told_when_no_candidate_is_left(
    house: House, provider: FakeProvider, other: FakeProvider
) -> None:
    with_routes(house, alias=route("fake/a", "other/x"))
    provider.load_errors = [LoadFailed("first")]
    other.load_errors = [LoadFailed("second")]
    async with house.running():
        with pytest.raises(LoadFailed, match="second"):
            await served(house, "alias")


async def test_who_was_asked_already_is_left_out(house: House, other: FakeProvider) -> None:
    with_routes(house, alias=route("fake/a", "other/x"))
    failed = {A: UpstreamFailed("500")}
    async with house.running():
        async with house.dispatcher.admit(Wish(model="alias")) as lease:
            assert lease.has_next
        async with house.dispatcher.admit(Wish(model="alias"), failed) as lease:
            assert (str(lease.ref), lease.reason) == ("other/x", "fallback: fake failed")
            assert not lease.has_next
        with pytest.raises(UpstreamFailed, match="last"):
            async with house.dispatcher.admit(
                Wish(model="alias"), {**failed, ModelRef("other", "x"): UpstreamFailed("last")}
            ):
                pass


async def test_a_provider_that_is_down_is_asked_only_when_nothing_else_is_left(
    house: House, provider: FakeProvider, other: FakeProvider
) -> None:
    with_routes(house, alias=route("fake/a", "other/x"), alone=route("fake/a"))
    async with house.running():
        provider.is_away = True
        await until(lambda: house.fleet.slots["fake"].is_down)
        assert await served(house, "alias") == ("other/x", "fallback: fake is down")
        with pytest.raises(ProviderUnreachable):
            await served(house, "alone")
        provider.is_away = False
        assert await served(house, "alone") == ("fake/a", "alias"), "it came back, and nobody has looked yet"


async def test_a_provider_that_was_never_there_gives_way_and_is_named(
    house: House, other: FakeProvider
) -> None:
    with_routes(house, alias=route("other/x", "fake/a"))
    other.is_away = True
    other.thawed.clear()
    async with house.running_without_waiting():
        await until(lambda: house.fleet.slots["fake"].is_listed)
        async with asyncio.timeout(5):  # a look at the one that hangs takes 6 s
            assert (await served(house, "alias"))[0] == "fake/a"


async def test_a_way_that_was_found_is_forgotten_when_its_provider_is_stopped_or_the_settings_change(
    house: House, provider: FakeProvider, other: FakeProvider
) -> None:
    provider.can_unload = False  # nothing of it is ever seen loaded
    with_routes(house, alias=route("fake/a", "other/x"))
    async with house.running():
        for _ in range(2):
            assert await served(house, "alias") == ("fake/a", "alias")
        slot = house.fleet.slots["fake"]
        house.fleet.take_in_hand(slot)
        house.fleet.hand_back(slot, is_stopped=True)
        assert await served(house, "alias") == ("other/x", "fallback: fake is down")
        await house.fleet.refresh([slot])
        assert await served(house, "alias") == ("fake/a", "alias")
        with_routes(house, alias=route("other/x"))
        assert await served(house, "alias") == ("other/x", "alias")


async def test_a_candidate_without_the_path_is_skipped_and_501_names_what_there_is(
    house: House, provider: FakeProvider, other: FakeProvider
) -> None:
    with_routes(house, alias=route("fake/a", "other/x"), alone=route("fake/a"))
    provider.paths = OLLAMA_PATHS
    async with house.running():
        assert await served(house, "alias", path=RERANK) == (
            "other/x",
            f"fallback: fake does not serve {RERANK}",
        )
        assert (await served(house, "alias", path=OLLAMA_CHAT))[0] == "fake/a"
        with pytest.raises(NotSupported) as told:
            await served(house, "alone", path=RERANK)
        assert f"fake cannot answer {RERANK}" in str(told.value)
        assert CHAT in str(told.value)


# -- pools -----------------------------------------------------------------------------------------------


async def test_c13_a_pool_is_served_by_the_least_loaded(
    house: House, provider: FakeProvider, other: FakeProvider
) -> None:
    provider.slots = other.slots = 2
    pools = {"both": PoolSettings(providers=("fake", "other"))}
    house.settings = msgspec.structs.replace(house.settings, pools=pools)
    with_routes(house, alias=route("both/a"))
    provider.put("a")
    other.put("a")
    async with house.running():
        for name in ("both/a", "alias", "a"):
            clients = []
            for _ in range(4):
                clients.append(Client(house, Wish(model=name)))
                await until(lambda: clients[-1].lease is not None)  # noqa: B023
            places = [str(client.lease.ref) for client in clients]
            assert places == ["fake/a", "other/a", "fake/a", "other/a"]
            assert clients[0].lease.reason == "pool: least loaded"
            for client in clients:
                await client.finish()
        assert await served(house, "fake/a") == ("fake/a", "model"), "who names a provider means it"
        with pytest.raises(UnknownModel):
            await served(house, "both/none")


async def test_the_catalog_names_what_pools_offer(
    house: House, provider: FakeProvider, other: FakeProvider
) -> None:
    pools = {"both": PoolSettings(providers=("fake", "other"))}
    house.settings = msgspec.structs.replace(house.settings, pools=pools)
    with_routes(house, alias=route("both/a"), lost=route("nobody/x"))
    other.put("a")
    async with house.running():
        entries = Catalog(house.fleet, house.loader, lambda: house.settings, house.clock).entries()
        assert {e.name: str(e.ref) for e in entries if e.is_alias} == {
            "alias": "other/a",
            "lost": "nobody/x",
            "both/a": "other/a",
        }
        for entry in entries:
            if entry.name != "lost":
                await served(house, entry.name)


async def test_of_a_pool_those_that_are_down_come_last(
    house: House, provider: FakeProvider, other: FakeProvider
) -> None:
    pools = {"both": PoolSettings(providers=("fake", "other"), models=("a",))}
    house.settings = msgspec.structs.replace(house.settings, pools=pools)
    async with house.running():
        provider.is_away = True
        await until(lambda: house.fleet.slots["fake"].is_down)
        assert (await served(house, "both/a"))[0] == "other/a"
        with pytest.raises(UnknownModel):
            await served(house, "both/x")


# -- loads -----------------------------------------------------------------------------------------------


async def test_r1_a_model_that_cannot_load_keeps_nobody_else(house: House, provider: FakeProvider) -> None:
    provider.put("b")
    async with house.running():
        provider.load_errors = [LoadFailed("broken")] * 3
        broken = [asyncio.create_task(served(house, "a")) for _ in range(50)]
        assert await served(house, "b") == ("fake/b", "model")
        results = await asyncio.gather(*broken, return_exceptions=True)
        assert all(isinstance(result, LoadFailed) for result in results)
        assert provider.calls.count(("load", "a")) == 1, "all who waited for that load are told the same"


async def test_r5_cold_requests_share_one_load(house: House, provider: FakeProvider) -> None:
    provider.load_s, provider.slots = 0.1, 4
    async with house.running():
        results = await asyncio.gather(*(served(house, "a") for _ in range(200)))
        assert len(results) == 200
    assert provider.calls == [("load", "a")]


async def test_r11_a_ready_model_waits_for_no_load_eject_or_hanging_provider(
    house: House, provider: FakeProvider, other: FakeProvider
) -> None:
    provider.put("b")
    async with house.running():
        provider.load_s = 30
        loading = asyncio.create_task(served(house, "a"))
        other.thawed.clear()
        await until(lambda: ("load", "a") in provider.calls)
        async with asyncio.timeout(5):  # the load takes 30 s, a look at the hanging one 6 s
            for _ in range(20):
                assert await served(house, "b") == ("fake/b", "model")
        loading.cancel()


async def test_a_load_that_ends_while_somebody_asks_for_another_context_ends_for_both(
    house: House, provider: FakeProvider
) -> None:
    async with house.running():
        slot = house.fleet.slots["fake"]
        for turns in range(12):
            first = asyncio.create_task(
                house.loader.ensure(slot, LoadRequest(model="a", context_length=1024 + turns))
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            loaded = await house.loader.ensure(slot, LoadRequest(model="a", context_length=8192))
            assert loaded.context_length == 8192
            await first


async def test_a_client_that_leaves_while_its_model_loads_hands_the_load_to_the_next(
    house: House, provider: FakeProvider
) -> None:
    provider.load_s = 0.3
    async with house.running():
        first = asyncio.create_task(served(house, "a"))
        await until(lambda: ("load", "a") in provider.calls)
        second = asyncio.create_task(served(house, "a"))
        await asyncio.sleep(0.01)
        first.cancel()
        assert await second == ("fake/a", "model")
    assert provider.calls == [("load", "a")]


async def test_a_model_on_its_way_out_is_brought_in_again(house: House, provider: FakeProvider) -> None:
    provider.put("a")
    async with house.running():
        await served(house, "a")
        provider.thawed.clear()  # the unload takes its time
        unloading = asyncio.create_task(house.loader.unload(house.fleet.slots["fake"], "a"))
        await until(lambda: ("unload", "a") in provider.calls)
        asked = asyncio.create_task(served(house, "a"))
        await asyncio.sleep(0.05)
        assert not asked.done()
        provider.thawed.set()
        await unloading
        assert await asked == ("fake/a", "model")
    assert provider.calls == [("unload", "a"), ("load", "a")]


async def test_what_the_cloud_has_is_not_loaded_and_not_counted(house: House, other: FakeProvider) -> None:
    other.is_local = other.can_unload = False
    other.slots = 1
    async with house.running():
        clients = [Client(house, Wish(model="x")) for _ in range(20)]
        await until(lambda: all(client.lease for client in clients))
        for client in clients:
            await client.finish()
    assert other.calls == []


async def test_a_model_that_its_provider_has_elsewhere_is_asked_for_once(
    house: House, provider: FakeProvider
) -> None:
    async def load(request: LoadRequest) -> LoadedModel:
        provider.calls.append(("load", request.model))
        return LoadedModel(name=request.model, needs_gpu=False)

    provider.load = load  # type: ignore[method-assign]
    async with house.running():
        await served(house, "a")
        clients = [Client(house, Wish(model="a")) for _ in range(10)]
        await until(lambda: all(client.lease for client in clients))
        for client in clients:
            await client.finish()
    assert provider.calls == [("load", "a")]


# -- places ----------------------------------------------------------------------------------------------


async def test_r6_as_many_are_in_flight_as_the_engine_has_places(
    house: House, provider: FakeProvider
) -> None:
    provider.slots = 2
    running = most = 0

    async def ask() -> None:
        nonlocal running, most
        async with house.dispatcher.admit(Wish(model="a")):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

    async with house.running():
        await asyncio.gather(*(ask() for _ in range(16)))
        assert most == 2
        (queue,) = house.dispatcher.queues()
        assert (queue.admitted_total, queue.finished_total, queue.waiting, queue.in_flight) == (16, 16, 0, 0)


async def test_places_follow_the_engine_when_it_is_loaded_with_others(
    house: House, provider: FakeProvider
) -> None:
    provider.slots = 1
    async with house.running():
        clients = [Client(house, Wish(model="a")) for _ in range(3)]
        await until(lambda: sum(client.lease is not None for client in clients) == 1)
        provider.slots = 3
        provider.put("a")
        await house.fleet.refresh()
        await until(lambda: all(client.lease for client in clients))
        for client in clients:
            await client.finish()


async def test_a_full_line_refuses_with_a_time_and_a_fallback_takes_over(
    house: House, provider: FakeProvider, other: FakeProvider
) -> None:
    with_router(house, max_queue_size_per_model=2)
    with_routes(house, alias=route("fake/a", "other/x"))
    provider.slots = 1
    async with house.running():
        clients = [Client(house, Wish(model="a")) for _ in range(3)]
        await until(lambda: house.dispatcher.queues() != () and house.dispatcher.queues()[0].waiting == 2)
        with pytest.raises(QueueFull) as told:
            await served(house, "a")
        assert 1 <= told.value.retry_after_s <= 300
        assert await served(house, "alias") == ("other/x", "fallback: the queue of a is full")
        for client in clients:
            await client.finish()
        assert house.dispatcher.queues()[0].rejected_total == 2


async def test_who_waits_too_long_is_told(house: House, provider: FakeProvider) -> None:
    with_router(house, queue_timeout_seconds=0.05)
    provider.slots = 1
    async with house.running():
        client = Client(house, Wish(model="a"))
        await until(lambda: client.lease is not None)
        with pytest.raises(TimedOut, match=r"0\.05 seconds"):
            await served(house, "a")
        await client.finish()
        assert await served(house, "a") == ("fake/a", "model")


async def test_who_leaves_the_line_is_gone_at_once(house: House, provider: FakeProvider) -> None:
    provider.slots = 1
    async with house.running():
        first = Client(house, Wish(model="a"))
        await until(lambda: first.lease is not None)
        waiting = [Client(house, Wish(model="a")) for _ in range(500)]
        await until(lambda: house.dispatcher.queues()[0].waiting == 500)
        for client in waiting:
            client.task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert house.dispatcher.queues()[0].waiting == 0
        await first.finish()
        assert await served(house, "a") == ("fake/a", "model")


async def test_r15_unknown_names_grow_nothing(house: House, other: FakeProvider) -> None:
    async with house.running():
        names = [*(f"m{n}" for n in range(300)), *(f"fake/m{n}" for n in range(300))]
        results = await asyncio.gather(*(served(house, name) for name in names), return_exceptions=True)
        assert all(isinstance(result, UnknownModel) for result in results)
        other.is_away = True
        await until(lambda: house.fleet.slots["other"].is_down)
        results = await asyncio.gather(
            *(served(house, f"other/m{n}") for n in range(300)), return_exceptions=True
        )
        assert all(isinstance(result, ProviderUnreachable) for result in results)
        assert house.dispatcher.queues() == ()


# -- contexts --------------------------------------------------------------------------------------------


async def test_the_larger_context_stays(house: House, provider: FakeProvider) -> None:
    with_routes(house, small=route("fake/a", num_ctx=4096), large=route("fake/a", num_ctx=16384))
    async with house.running():
        for name in ("small", "large", "small", "large", "small"):
            assert await served(house, name) == ("fake/a", "alias")
        assert provider.loaded["a"].context_length == 16384
        async with house.dispatcher.admit(Wish(model="small")) as lease:
            assert lease.overrides is not None
            assert lease.overrides.context_length == 16384, "Ollama would load it anew for less"
    assert provider.calls == [("load", "a"), ("load", "a")]


async def test_a_larger_context_waits_until_the_model_is_idle_and_nobody_slips_in(
    house: House, provider: FakeProvider
) -> None:
    provider.kind = ProviderKind.LLAMA_SERVER
    provider.slots = 4
    provider.put("a", 4096)
    async with house.running():
        first = Client(house, Wish(model="a"))
        await until(lambda: first.lease is not None)
        large = [Client(house, Wish(model="a", context_length=8192)) for _ in range(2)]
        await asyncio.sleep(0.01)
        late = Client(house, Wish(model="a"))
        await asyncio.sleep(0.05)
        assert provider.calls == []
        assert (large[0].lease, late.lease) == (None, None)
        await first.finish()
        await until(lambda: late.lease is not None)
        assert all(client.lease for client in large)
        assert provider.loaded["a"].context_length == 8192
        for client in (*large, late):
            await client.finish()
    assert provider.calls == [("load", "a")]


async def test_a_context_that_the_model_cannot_have_is_asked_for_once(
    house: House, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = provider.load

    async def load_at_most(request: LoadRequest) -> Any:
        most = min(request.context_length or 4096, 8192)
        return await load(msgspec.structs.replace(request, context_length=most))

    provider.load = load_at_most  # type: ignore[method-assign]
    async with house.running():
        for _ in range(3):
            await served(house, "a", context_length=100_000)
    assert provider.calls == [("load", "a")]


async def test_a_model_on_the_cpu_is_loaded_in_the_background_during_a_game(
    house: House, provider: FakeProvider
) -> None:
    provider.cpu_only = frozenset({"b"})
    async with house.running():
        house.game()
        assert await served(house, "b") == ("fake/b", "model")
        assert provider.requests[-1].is_in_background
